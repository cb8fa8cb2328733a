package main

import (
	"encoding/json"
	"fmt"
	"maps"
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
	words map[string]string // what each of them said
	whole bool              // it ended before all its tests did, by a panic or by time: nobody knows which did not run
	built bool
}

type failures map[string]*failure

func (f failures) of(pkg string) *failure {
	if f[pkg] == nil {
		f[pkg] = &failure{built: true, words: map[string]string{}}
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

// again are the runs that show whether it was chance; none = it was not. Where many subtests of one test fail together,
// as they do when what they share breaks, that is one chance: the tests above them are run.
func (f failures) again() []test {
	for depth := f.depth(); depth >= 0; depth-- {
		if runs, ok := f.runs(depth); !ok || len(runs) <= chances {
			return runs
		}
	}
	return nil
}

// depth is how far down the lowest test lies that failed.
func (f failures) depth() int {
	deepest := 0
	for _, failed := range f {
		for _, t := range failed.tests {
			deepest = max(deepest, strings.Count(t, "/"))
		}
	}
	return deepest
}

// runs are what failed, with what lies deeper told by the test above it; false = what did not build cannot be run.
func (f failures) runs(depth int) ([]test, bool) {
	var runs []test
	for _, pkg := range slices.Sorted(maps.Keys(f)) {
		failed := f[pkg]
		if !failed.built {
			return nil, false
		}
		if failed.whole {
			runs = append(runs, test{Package: pkg})
			continue
		}
		for _, t := range failed.leaves() {
			t = strings.Join(head(strings.Split(t, "/"), depth+1), "/")
			if !slices.Contains(runs, test{pkg, t}) {
				runs = append(runs, test{pkg, t})
			}
		}
	}
	return runs, true
}

func head(s []string, n int) []string { return s[:min(n, len(s))] }

// runAgain runs what failed once more.
func runAgain(record *json.Encoder, failed failures, args []string) error {
	runs := failed.again()
	if len(runs) == 0 {
		failed.sum(os.Stdout)
		return fmt.Errorf("nothing is run again: more than %d tests failed, or one did not build", chances)
	}
	for _, t := range runs {
		fmt.Fprintf(os.Stdout, "\n== once more, alone: %s %s\n", t.Package, t.Test)
		p := newPrinter(os.Stdout, record, verbose(args))
		if err := run(p, only(args, t)); err != nil {
			failed.sum(os.Stdout)
			p.failed.sum(os.Stdout)
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
