package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// chances is how many tests may fail in one run for it to be taken for chance: real guests under emulation, on processors
// that others use too. More than that is not looked at twice.
const chances = 3

// failure is what failed in a package.
type failure struct {
	tests []string
	whole bool // it ended before all its tests did, by a panic or by time: nobody knows which did not run
	built bool
}

type failures map[string]*failure

func (f failures) of(pkg string) *failure {
	if f[pkg] == nil {
		f[pkg] = &failure{built: true}
	}
	return f[pkg]
}

// note looks at an event of go test.
func (f failures) note(e event) {
	switch {
	case e.Action == "fail" && e.Test != "":
		f.of(e.Package).tests = append(f.of(e.Package).tests, e.Test)
	case e.Action == "fail":
		of := f.of(e.Package)
		of.built = e.FailedBuild == ""
		of.whole = of.whole || len(of.tests) == 0
	case e.Action == "output" && strings.HasPrefix(e.Output, "panic: "):
		f.of(e.Package).whole = true
	}
}

// leaves are the tests that failed by themselves, not by a subtest.
func (f *failure) leaves() []string {
	var leaves []string
	for _, t := range f.tests {
		if !slices.ContainsFunc(f.tests, func(u string) bool { return strings.HasPrefix(u, t+"/") }) {
			leaves = append(leaves, t)
		}
	}
	return leaves
}

// again are the runs that show whether it was chance; none = it was not.
func (f failures) again() []test {
	var runs []test
	for pkg, failed := range f {
		if !failed.built {
			return nil
		}
		switch leaves := failed.leaves(); {
		case failed.whole:
			runs = append(runs, test{Package: pkg})
		default:
			for _, t := range leaves {
				runs = append(runs, test{pkg, t})
			}
		}
	}
	if len(runs) > chances {
		return nil
	}
	return runs
}

// runAgain runs what failed once more.
func runAgain(record *json.Encoder, failed failures, args []string) error {
	runs := failed.again()
	if len(runs) == 0 {
		return fmt.Errorf("nothing is run again: more than %d tests failed, or one did not build", chances)
	}
	for _, t := range runs {
		fmt.Fprintf(os.Stdout, "\n== once more, alone: %s %s\n", t.Package, t.Test)
		p := newPrinter(os.Stdout, record, verbose(args))
		if err := run(p, only(args, t)); err != nil {
			return err
		}
		if err := record.Encode(outcome{test: t, Again: true}); err != nil {
			return err
		}
	}
	return nil
}

// only is args with the packages replaced by one test.
func only(args []string, t test) []string {
	one := []string{"-count=1"}
	if t.Test != "" {
		parts := strings.Split(t.Test, "/")
		for i, part := range parts {
			parts[i] = "^" + regexp.QuoteMeta(part) + "$"
		}
		one = append(one, "-run", strings.Join(parts, "/"))
	}
	one = append(one, t.Package)
	var out []string
	for _, a := range args {
		if !strings.HasPrefix(a, "./") {
			out = append(out, a)
		} else if one != nil {
			out, one = append(out, one...), nil
		}
	}
	return out
}
