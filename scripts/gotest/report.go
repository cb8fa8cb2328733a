package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// outcomes are all that a record holds.
func outcomes(file string) (all []outcome, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	for d := json.NewDecoder(f); ; {
		var o outcome
		if err := d.Decode(&o); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, o)
	}
}

// skipped prints go test's pattern of the tests that were skipped, or that have a part which was, for a reason with these
// words in it. None is an error: the pattern of nothing would be that of everything.
func skipped(w io.Writer, file, words string) error {
	all, err := outcomes(file)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, o := range all {
		if o.Skipped && strings.Contains(o.Why, words) {
			whole, _, _ := strings.Cut(o.Test, "/")
			names[regexp.QuoteMeta(whole)] = true
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no test of %s was skipped for %q", file, words)
	}
	_, err = fmt.Fprintf(w, "^(%s)$\n", strings.Join(slices.Sorted(maps.Keys(names)), "|"))
	return err
}

// report lists the tests that never ran, those that failed once, and what tests wanted told.
func report(w io.Writer, file string) error {
	all, err := outcomes(file)
	if err != nil {
		return err
	}
	ran := map[test]bool{}
	reasons := map[test]string{}
	var order []test
	for _, o := range all {
		if o.Again {
			fmt.Fprintf(w, "%s %s failed, and passed when it was run once more: mend it\n", o.Package, o.Test)
		}
		if o.Note != "" {
			fmt.Fprintf(w, "%s %s: %s\n", o.Package, o.Test, o.Note)
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
