package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"banger/internal/vm"
)

// listing is how a list is written: as a table, as JSON, or each of it by a template.
type listing struct {
	json, quiet bool
	format      string

	help     string // where the fields are told
	columns  string // the template, where a table is asked for by one
	template *template.Template
}

// listFlags adds --json, --quiet and --format to a command that lists what noun names. --format is read before anything is done.
func listFlags(cmd *cobra.Command, noun string) *listing {
	l := &listing{}
	f := cmd.Flags()
	f.BoolVar(&l.json, "json", false, "print JSON on stdout, for programs")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "print names only")
	f.StringVar(&l.format, "format", "", "write each "+noun+" by this Go `TEMPLATE`")
	exclusive(cmd, "json", "quiet", "format")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return l.read(cmd) }
	return l
}

// read reads the flags. As with Docker, "json" and "table" are ways to write, and templates may begin with "table ".
func (l *listing) read(cmd *cobra.Command) (err error) {
	l.help = cmd.CommandPath() + " --help"
	line := l.format
	switch {
	case l.quiet:
		line = "{{.Name}}"
	case line == "json":
		l.json, line = true, ""
	case line == "table":
		line = ""
	}
	if line == "" {
		return nil
	}
	line, tabular := strings.CutPrefix(line, "table ")
	if tabular {
		l.columns = line
	}
	if l.template, err = parseFormat(line); err != nil {
		return usage(cmd, "--format: %w", err)
	}
	return nil
}

// writeList writes all of a list but as JSON: by the template, each as what of gives it, else as the table.
func writeList[T, F any](w io.Writer, l *listing, all []T, of func(T) (name string, fields F), ordinary func() *table) error {
	if l.template == nil {
		return ordinary().write(w)
	}
	var lines []string
	for _, one := range all {
		var b strings.Builder
		name, fields := of(one)
		if err := l.template.Execute(&b, fields); err != nil { // it asks for what there is not: found out at the first
			return vm.Errorf(vm.CodeInvalid, "write %s: %w", name, err).WithHint("see '%s' for the fields", l.help)
		}
		lines = append(lines, b.String())
	}
	if l.columns != "" {
		return tableOf(l.columns, lines).write(w)
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// tableOf lays out what a template wrote, a column up to each tab. Its header has the names of the fields, as Docker's.
func tableOf(columns string, lines []string) *table {
	field := regexp.MustCompile(`{{[^}]*\.([A-Z]\w*)`) // here: every command would compile it at its start
	t := &table{}
	var header []string
	for column := range strings.SplitSeq(unescape(columns), "\t") {
		if found := field.FindStringSubmatch(column); found != nil {
			column = strings.ToUpper(found[1])
		}
		header = append(header, column)
	}
	t.row(header...)
	for _, l := range lines {
		t.row(strings.Split(l, "\t")...)
	}
	return t
}
