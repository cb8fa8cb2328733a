package main

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A run of all suites prints thousands of lines, and who looks at it may be shown its last ones only.
const (
	sumTests = 8
	sumLines = 6   // of each
	sumWidth = 240 // of each line
)

// said matches the first line of what a test says by t.Log, t.Error and so on.
var said = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// sum tells in short what failed, and what it said last.
func (f failures) sum(w io.Writer) {
	n := 0
	for _, pkg := range slices.Sorted(maps.Keys(f)) {
		for _, t := range f[pkg].leaves() {
			if n++; n > sumTests {
				continue
			}
			fmt.Fprintf(w, "== failed: %s %s\n", pkg, t)
			for _, line := range lastWords(f[pkg].words[t]) {
				fmt.Fprintf(w, "   %s\n", line)
			}
		}
	}
	if n > sumTests {
		fmt.Fprintf(w, "== failed: %d more\n", n-sumTests)
	}
}

// lastWords are the last lines that the test itself said; else the last there are.
func lastWords(text string) []string {
	var its, all []string
	for line := range strings.Lines(frameless(text)) {
		line = strings.TrimRight(line, "\n")
		if r := []rune(line); len(r) > sumWidth {
			line = string(r[:sumWidth]) + "…"
		}
		all = append(all, strings.TrimSpace(line))
		if said.MatchString(line) {
			its = append(its, strings.TrimSpace(line))
		}
	}
	if len(its) == 0 {
		its = all
	}
	return its[max(0, len(its)-sumLines):]
}
