package cli

import (
	"cmp"
	"encoding/json"
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

func formattedOf(r api.VMSummary) formatted {
	return formatted{r, cmp.Or(r.Restart, vm.RestartNo), r.Ports, r.Pending}
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
