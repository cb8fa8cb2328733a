package cli

import (
	"cmp"
	"encoding/json"
	"io"
	"regexp"
	"strings"
	"text/template"

	"banger/internal/api"
	"banger/internal/vm"
)

// formatted is a VM as --format has it: in words where the list itself has what programs read.
type formatted struct {
	api.VMSummary
	Restart string  `json:"restart"`
	Ports   portSet `json:"ports,omitempty"`
	Pending wordSet `json:"pending,omitempty"`
}

// wordSet is words, in a template a list with commas.
type wordSet []string

func (s wordSet) String() string { return strings.Join(s, ", ") }

// portSet is published ports, in a template a list with commas.
type portSet []vm.Port

func (s portSet) String() string {
	var words []string
	for _, p := range s {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}

// parseFormat reads a template of --format.
func parseFormat(s string) (*template.Template, error) {
	return template.New("--format").Funcs(template.FuncMap{"json": toJSON}).Parse(unescape(s))
}

// toJSON is v on one line, with the letters that HTML would have otherwise as they are.
func toJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// unescape makes tabs and new lines of \t and \n, which a shell hands on as they are. Within {{ }} Go's own strings have them.
func unescape(s string) string {
	var b strings.Builder
	for s != "" {
		text, rest, found := strings.Cut(s, "{{")
		b.WriteString(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
		if !found {
			break
		}
		action, after, _ := strings.Cut(rest, "}}")
		b.WriteString("{{" + action)
		if s = after; len(rest) > len(action) {
			b.WriteString("}}")
		}
	}
	return b.String()
}

// writeEach writes a line for each VM. A template that asks for what there is not is found out at the first.
func writeEach(w io.Writer, line *template.Template, all []api.VMSummary) error {
	lines, err := eachLine(line, all)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.Join(lines, ""))
	return err
}

func eachLine(line *template.Template, all []api.VMSummary) ([]string, error) {
	var lines []string
	for _, r := range all {
		var b strings.Builder
		if err := line.Execute(&b, formatted{r, cmp.Or(r.Restart, vm.RestartNo), r.Ports, r.Pending}); err != nil {
			return nil, vm.Errorf(vm.CodeInvalid, "write VM %s: %w", r.Name, err).WithHint("see 'banger vm list --help' for the fields")
		}
		lines = append(lines, b.String()+"\n")
	}
	return lines, nil
}

// formatTable lays out what a template writes, a column up to each tab. Its header has the names of the fields, as Docker's.
func formatTable(text string, line *template.Template, all []api.VMSummary) (*table, error) {
	field := regexp.MustCompile(`{{[^}]*\.([A-Z]\w*)`) // here: every command would compile it at its start
	t := &table{}
	var header []string
	for column := range strings.SplitSeq(unescape(text), "\t") {
		if found := field.FindStringSubmatch(column); found != nil {
			column = strings.ToUpper(found[1])
		}
		header = append(header, column)
	}
	t.row(header...)
	lines, err := eachLine(line, all)
	for _, l := range lines {
		t.row(strings.Split(strings.TrimSuffix(l, "\n"), "\t")...)
	}
	return t, err
}
