package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// event is one of `go tool test2json`, which reads what a test binary prints (its own documentation has the format).
type event struct {
	Action  string // start, run, output, pass, fail, skip, bench, pause, cont
	Test    string // empty: the binary as a whole
	Output  string
	Elapsed float64 // seconds, at a test's end
}

// result is a test's, or the binary's when it has no name.
type result struct {
	name    string
	action  string // pass, fail or skip; empty: it did not end
	seconds float64
	output  []string
	subs    []*result
}

// of returns the result of a test below r, given by its full name.
func (r *result) of(name string) *result {
	if name == "" {
		return r
	}
	parent := r
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent = r.of(name[:i])
	}
	for _, s := range parent.subs {
		if s.name == name {
			return s
		}
	}
	s := &result{name: name}
	parent.subs = append(parent.subs, s)
	return s
}

// add takes one event, and returns the result of a test that has ended with it, and is no other's subtest.
func (r *result) add(e event) *result {
	of := r.of(e.Test)
	switch e.Action {
	case "output":
		if !framing(e.Output) {
			of.output = append(of.output, strings.TrimSuffix(e.Output, "\n"))
		}
	case "pass", "fail", "skip":
		if of.action != "fail" { // as a panic's, which is told before the test's end is
			of.action = e.Action
		}
		of.seconds = e.Elapsed
		if e.Test != "" && !strings.Contains(e.Test, "/") {
			return of
		}
	}
	return nil
}

// framing is what says in words what the events say.
func framing(line string) bool {
	line = strings.TrimSpace(line)
	return slices.ContainsFunc([]string{"=== ", "--- PASS: ", "--- FAIL: ", "--- SKIP: "}, func(p string) bool { return strings.HasPrefix(line, p) })
}

// read reads events to their end, and calls ended for each test when it has ended.
func read(r io.Reader, ended func(*result)) (*result, error) {
	all := &result{}
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, fmt.Errorf("read the events of test2json: %w", err)
		}
		if done := all.add(e); done != nil {
			ended(done)
		}
	}
}

// verdict says what a test's end means here, where no facility of required may be missing: a skip for one is a failure.
func (r *result) verdict(required []string) (action, why string) {
	switch r.action {
	case "":
		return "fail", "the test did not end"
	case "skip":
		for _, f := range required {
			if slices.ContainsFunc(r.output, func(line string) bool { return strings.Contains(line, "needs "+f+":") }) {
				return "fail", "skipped for " + f + ", which the lab has"
			}
		}
	}
	return r.action, ""
}

// replay makes the result a subtest of t's.
func (r *result) replay(t *testing.T, required []string) {
	t.Run(r.name[strings.LastIndexByte(r.name, '/')+1:], func(t *testing.T) {
		for _, s := range r.subs {
			s.replay(t, required)
		}
		if len(r.output) > 0 || r.seconds >= 1 { // the subtest's own time is that of its telling
			t.Logf("%.1f s in the lab\n%s", r.seconds, strings.Join(r.output, "\n"))
		}
		switch action, why := r.verdict(required); {
		case why != "":
			t.Error(why)
		case action == "fail":
			t.Fail()
		case action == "skip":
			t.SkipNow()
		}
	})
}

// count adds up how many tests and subtests ended how.
func (r *result) count(n map[string]int) {
	for _, s := range r.subs {
		n[s.action]++
		s.count(n)
	}
}
