package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string // run, pass, fail, skip, output, build-output, …
	Package string
	Test    string // empty: of the package itself
	Output  string
}

type test struct{ Package, Test string }

// outcome is one line of the record: how a test ended.
type outcome struct {
	test
	Skipped bool
	Why     string `json:",omitempty"`
}

// printer shows what go test shows: all with -v, else a line a package and what failed.
type printer struct {
	out     io.Writer
	record  *json.Encoder
	verbose bool
	said    map[test]string // by tests that have not ended
}

func newPrinter(out io.Writer, record *json.Encoder, verbose bool) *printer {
	return &printer{out: out, record: record, verbose: verbose, said: map[test]string{}}
}

func (p *printer) line(b []byte) error {
	var e event
	if json.Unmarshal(b, &e) != nil { // a word of go itself
		_, err := fmt.Fprintf(p.out, "%s\n", b)
		return err
	}
	t := test{e.Package, e.Test}
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
		if e.Action == "fail" && !p.verbose {
			if err := p.print(frameless(said)); err != nil {
				return err
			}
		}
		return p.record.Encode(outcome{t, e.Action == "skip", why(said)})
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

// report lists the tests that never ran.
func report(w io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	ran := map[test]bool{}
	reasons := map[test]string{}
	var order []test
	for d := json.NewDecoder(f); ; {
		var o outcome
		if err := d.Decode(&o); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if !o.Skipped {
			ran[o.test] = true
		} else if _, known := reasons[o.test]; !known {
			order = append(order, o.test)
			reasons[o.test] = o.Why
		}
	}
	n := 0
	for _, t := range order {
		if !ran[t] {
			n++
			fmt.Fprintf(w, "%s %s: %s\n", t.Package, t.Test, reasons[t])
		}
	}
	fmt.Fprintf(w, "%d tests ran, %d were skipped\n", len(ran), n)
	return nil
}
