package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// screen is all that was shown, and when.
type screen struct {
	width, height int
	lines         []line
	end           float64 // seconds
}

// line is one row, with each text that it had in turn.
type line struct {
	versions []version
}

type version struct {
	text string
	from float64 // seconds
}

// play reads a recording: an object with its size, then [SECONDS, "o", TEXT] for each output.
func play(text []byte) (*screen, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	var head struct{ Version, Width, Height int }
	if err := d.Decode(&head); err != nil {
		return nil, err
	}
	if head.Version != 2 || head.Width < 1 || head.Height < 1 {
		return nil, fmt.Errorf("version %d, %d columns, %d rows: it must be an asciicast of version 2 with a size", head.Version, head.Width, head.Height)
	}
	s := &screen{width: head.Width, height: head.Height}
	t := terminal{screen: s}
	for d.More() {
		var event []any
		if err := d.Decode(&event); err != nil {
			return nil, err
		}
		if len(event) != 3 {
			return nil, fmt.Errorf("an event has %d parts, not 3", len(event))
		}
		at, isTime := event[0].(float64)
		text, isText := event[2].(string)
		if !isTime || !isText || at < s.end {
			return nil, fmt.Errorf("event %v is not [SECONDS, KIND, TEXT] at or after the one before", event)
		}
		s.end = at
		if event[1] == "o" {
			if err := t.write(at, text); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// terminal has the cursor at the end of the last line, or at its beginning after a return.
type terminal struct {
	*screen
	row      []rune
	column   int
	sequence []rune // an escape sequence that has not ended
}

func (t *terminal) write(at float64, text string) error {
	for _, c := range text {
		switch {
		case len(t.sequence) > 0:
			t.sequence = append(t.sequence, c)
			if len(t.sequence) < 3 && c == '[' || c >= '0' && c <= '?' {
				continue
			}
			switch seq := string(t.sequence[1:]); {
			case seq == "[K":
				t.row = t.row[:t.column]
			case strings.HasSuffix(seq, "m"):
			default:
				return fmt.Errorf("at %.1f s: the escape sequence %q is not known", at, seq)
			}
			t.sequence = nil
		case c == '\x1b':
			t.sequence = []rune{c}
		case c == '\r':
			t.column = 0
		case c == '\n':
			t.show(at)
			t.lines = append(t.lines, line{})
			t.row, t.column = nil, 0
		case c < ' ' && c != '\t':
			return fmt.Errorf("at %.1f s: the control character %q is not known", at, c)
		default:
			if t.column < len(t.row) {
				t.row[t.column] = c
			} else {
				t.row = append(t.row, c)
			}
			if t.column++; t.column > t.width {
				return errors.New("a line is longer than the terminal is wide: record it with more columns")
			}
		}
	}
	t.show(at)
	return nil
}

// show has the last line be as the row is now, from then on.
func (t *terminal) show(at float64) {
	if len(t.lines) == 0 {
		t.lines = append(t.lines, line{})
	}
	last := &t.lines[len(t.lines)-1]
	text := strings.TrimRight(string(t.row), " ")
	n := len(last.versions)
	switch {
	case n > 0 && last.versions[n-1].text == text:
	case n > 0 && last.versions[n-1].from == at:
		last.versions[n-1].text = text
	default:
		last.versions = append(last.versions, version{text, at})
	}
}
