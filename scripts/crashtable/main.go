// Command crashtable makes the table of docs/RELIABILITY.md out of what the crash tests recorded:
//
//	crashtable RESULTS PAGE
//
// RESULTS has a line of JSON for each operation and ending, as tests append them to the file that BANGER_CRASH_RESULTS
// names. In PAGE, what stands between the two marks is replaced. A case that did not converge is an error.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"banger/internal/crashtest"
)

const begin, end = "<!-- crash table: begin -->\n", "<!-- crash table: end -->\n"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: crashtable RESULTS PAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "crashtable:", err)
		os.Exit(1)
	}
}

func run(results, page string) error {
	text, err := os.ReadFile(results)
	if err != nil {
		return err
	}
	all, err := read(text)
	if err != nil {
		return fmt.Errorf("%s: %w", results, err)
	}
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

// table has a row for each place and operation, with the cases of all its endings, and a sum for each place.
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
