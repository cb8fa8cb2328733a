package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string // run, pass, fail, skip, output, build-output, …
	Package string
	Test    string // empty: of the package itself
	Output  string
	// FailedBuild names the package that did not compile, in the end of one that needs it.
	FailedBuild string
}

type test struct{ Package, Test string }

// outcome is one line of the record: how a test ended.
type outcome struct {
	test
	Skipped bool
	Why     string `json:",omitempty"`
	Again   bool   `json:",omitempty"` // it failed, and passed when it was run once more
	Note    string `json:",omitempty"` // what it wants told at the end of everything
}

// printer shows what go test shows: all with -v, else a line a package and what failed.
type printer struct {
	out     io.Writer
	record  *json.Encoder
	verbose bool
	said    map[test]string // by tests that have not ended
	failed  failures
}

func newPrinter(out io.Writer, record *json.Encoder, verbose bool) *printer {
	return &printer{out: out, record: record, verbose: verbose, said: map[test]string{}, failed: failures{}}
}

func (p *printer) line(b []byte) error {
	var e event
	if json.Unmarshal(b, &e) != nil { // a word of go itself
		_, err := fmt.Fprintf(p.out, "%s\n", b)
		return err
	}
	t := test{e.Package, e.Test}
	p.failed.note(e)
	switch e.Action {
	case "build-output":
		return p.print(e.Output)
	case "output":
		switch {
		case t.Test != "":
			p.said[t] += e.Output
			if p.verbose {
				return p.print(e.Output)
			}
		case p.verbose || e.Output != "PASS\n":
			return p.print(e.Output)
		}
	case "pass", "fail", "skip":
		if t.Test == "" {
			return p.packageEnds(t, e.Action)
		}
		said := p.said[t]
		delete(p.said, t)
		if e.Action == "fail" {
			p.failed.of(t.Package).words[t.Test] = said
			if !p.verbose {
				if err := p.print(frameless(said)); err != nil {
					return err
				}
			}
		}
		return p.record.Encode(outcome{test: t, Skipped: e.Action == "skip", Why: why(said), Note: note(said)})
	}
	return nil
}

func (p *printer) print(s string) error {
	_, err := io.WriteString(p.out, s)
	return err
}

// packageEnds shows the words of tests that never ended: the one that panicked, or was killed, is among them.
func (p *printer) packageEnds(t test, action string) error {
	for u, said := range p.said {
		if u.Package != t.Package {
			continue
		}
		delete(p.said, u)
		if action == "fail" && !p.verbose {
			if err := p.print(frameless(said)); err != nil {
				return err
			}
		}
	}
	return nil
}

// frameless leaves out the lines that only tell which test goes on.
func frameless(said string) string {
	var b strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// noteMark begins what a test wants told at the end, whatever became of it.
const noteMark = "REPORT: "

// note is the lines that a test marked so.
func note(said string) string {
	var all []string
	for line := range strings.Lines(said) {
		if _, text, ok := strings.Cut(line, noteMark); ok {
			all = append(all, strings.TrimSpace(text))
		}
	}
	return strings.Join(all, "; ")
}

// why is what a skipped test said last: "file_test.go:12: needs root".
func why(said string) string {
	last := ""
	for line := range strings.Lines(said) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "=== ") && !strings.HasPrefix(s, "--- ") {
			last = s
		}
	}
	return last
}
