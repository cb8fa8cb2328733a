package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// report lists the tests that never ran, and those that failed once.
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
		if o.Again {
			fmt.Fprintf(w, "%s %s failed, and passed when it was run once more: mend it\n", o.Package, o.Test)
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
