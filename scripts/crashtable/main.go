// Command crashtable makes the table of docs/RELIABILITY.md out of what the crash tests recorded, or without a page prints
// the sums, a line for each place:
//
//	crashtable [-promised] RESULTS [PAGE]
//
// RESULTS has a line of JSON for each test and operation, as tests append them to the file that BANGER_CRASH_RESULTS
// names; of a test that was run again the last one counts. In PAGE, what stands between the two marks is replaced. A case that did not converge is an error.
// With -promised, so are fewer cases than docs/RELIABILITY.md promises of a place, or none: it is for runs of all of them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"banger/internal/crashtest"
)

const begin, end = "<!-- crash table: begin -->\n", "<!-- crash table: end -->\n"

func main() {
	promised := flag.Bool("promised", false, "fail where a place has fewer cases than are promised")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: crashtable [-promised] RESULTS [PAGE]") }
	flag.Parse()
	if flag.NArg() != 1 && flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := tell(flag.Arg(0), flag.Arg(1), *promised); err != nil {
		fmt.Fprintln(os.Stderr, "crashtable:", err)
		os.Exit(1)
	}
}

// tell writes the table into a page; without one it prints the sums.
func tell(results, page string, promised bool) error {
	all, err := load(results)
	if err != nil {
		return err
	}
	if page == "" {
		fmt.Print(lines(all))
	}
	if promised {
		if err := kept(all); err != nil {
			return err
		}
	}
	if page == "" {
		return nil
	}
	return write(all, page)
}

// lines are the sums.
func lines(all []crashtest.Result) string {
	var places []string
	of := map[string]*crashtest.Result{}
	for _, r := range all {
		if of[r.Where] == nil {
			places, of[r.Where] = append(places, r.Where), new(crashtest.Result)
		}
		of[r.Where].Add(r)
	}
	var b strings.Builder
	for _, p := range places {
		fmt.Fprintf(&b, "crash cases on the %s: %d, converged %d, leaked %d, lost %d\n", p, of[p].Cases, of[p].Converged, of[p].Leaked, of[p].Lost)
	}
	return b.String()
}

func write(all []crashtest.Result, page string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	updated, err := replace(string(old), table(all))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(updated), 0o644)
}

// load reads a file of results.
func load(path string) ([]crashtest.Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := read(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

func read(text []byte) ([]crashtest.Result, error) {
	all, err := crashtest.ReadResults(text)
	if err == nil && len(all) == 0 {
		err = errors.New("there are no results")
	}
	for _, r := range all {
		if r.Converged != r.Cases || r.Leaked != 0 || r.Lost != 0 {
			return nil, fmt.Errorf("not every case converged: %+v", r)
		}
	}
	return all, err
}

// table has a row for each place and operation, with the cases of all its tests, and a sum for each place.
func table(all []crashtest.Result) string {
	var places []string
	rows, sums := map[string][]crashtest.Result{}, map[string]*crashtest.Result{}
	for _, r := range all {
		if !slices.Contains(places, r.Where) {
			places = append(places, r.Where)
			sums[r.Where] = new(crashtest.Result)
		}
		i := slices.IndexFunc(rows[r.Where], func(o crashtest.Result) bool { return o.Operation == r.Operation })
		if i < 0 {
			rows[r.Where] = append(rows[r.Where], crashtest.Result{Operation: r.Operation})
			i = len(rows[r.Where]) - 1
		}
		rows[r.Where][i].Add(r)
		sums[r.Where].Add(r)
	}
	var b strings.Builder
	b.WriteString("| where | operation | cases | converged | leaked | lost |\n|---|---|---|---|---|---|\n")
	line := func(where, operation string, r crashtest.Result) {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d |\n", where, operation, r.Cases, r.Converged, r.Leaked, r.Lost)
	}
	for _, p := range places {
		for _, r := range rows[p] {
			line(p, r.Operation, r)
		}
		line("**"+p+"**", "**all**", *sums[p])
	}
	return b.String()
}

func replace(page, table string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("the marks of the table are not there")
	}
	return before + begin + table + end + after, nil
}
