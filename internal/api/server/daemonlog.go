package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"banger/internal/host/logfile"
	"banger/internal/vm"
)

// noted passes on, of the lines of the daemon's log that are written to it, those about one VM, as text for people:
// time, level, what, and the rest as key=value. A line about a VM has its id.
type noted struct {
	w     io.Writer
	id    vm.ID
	since time.Time
	tail  int // of what is there at the beginning, which is the first Write, only so many lines; negative = all
	begun bool
	part  []byte // of a line whose end has not come
}

// Write implements io.Writer.
func (n *noted) Write(p []byte) (int, error) {
	n.part = append(n.part, p...)
	var out bytes.Buffer
	for {
		line, rest, ok := bytes.Cut(n.part, []byte("\n"))
		if !ok {
			break
		}
		n.part = rest
		n.line(&out, line)
	}
	text := out.Bytes()
	if !n.begun {
		text = logfile.LastLines(text, n.tail)
	} else if len(text) == 0 {
		return len(p), nil
	}
	n.begun = true
	if _, err := n.w.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// line writes a line, if it is one of them. What is no JSON object is why a daemon could not start: about no VM.
func (n *noted) line(out *bytes.Buffer, line []byte) {
	if !bytes.Contains(line, []byte(n.id)) { // nearly all of them
		return
	}
	var l struct {
		Time       time.Time
		Level, Msg string
		ID         vm.ID
	}
	if json.Unmarshal(line, &l) != nil || l.ID != n.id || l.Time.Before(n.since) {
		return
	}
	fmt.Fprintf(out, "%s %-5s %s", l.Time.Format(time.RFC3339), l.Level, l.Msg)
	for _, a := range attributes(line) {
		switch a.key {
		case "time", "level", "msg", "vm", "id":
		default:
			fmt.Fprintf(out, " %s=%s", a.key, a.value)
		}
	}
	out.WriteByte('\n')
}

type attribute struct{ key, value string }

// attributes are the members of a JSON object, in their order.
func attributes(object []byte) (all []attribute) {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return all
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return all
		}
		text := string(value)
		var s string
		if json.Unmarshal(value, &s) == nil {
			if text = s; s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }) {
				text = strconv.Quote(s)
			}
		}
		all = append(all, attribute{fmt.Sprint(key), text})
	}
	return all
}
