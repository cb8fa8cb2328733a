package metrics

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// Label is one dimension of a sample.
type Label struct{ Name, Value string }

// Text collects samples in the text format. Those of one family come after its Family, together.
type Text struct{ b bytes.Buffer }

// Family begins a family of samples. kind is counter, gauge or histogram.
func (t *Text) Family(kind, name, help string) {
	t.b.WriteString("# HELP " + name + " " + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help) + "\n# TYPE " + name + " " + kind + "\n")
}

// Sample adds one.
func (t *Text) Sample(name string, v float64, labels ...Label) {
	t.b.WriteString(name)
	for i, l := range labels {
		if i == 0 {
			t.b.WriteByte('{')
		} else {
			t.b.WriteByte(',')
		}
		t.b.WriteString(l.Name + `="` + labelEscapes.Replace(strings.ToValidUTF8(l.Value, "\ufffd")) + `"`)
	}
	if len(labels) > 0 {
		t.b.WriteByte('}')
	}
	t.b.WriteString(" " + number(v) + "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// One adds a family of one sample without labels.
func (t *Text) One(kind, name, help string, v float64) {
	t.Family(kind, name, help)
	t.Sample(name, v)
}

// WriteTo implements io.WriterTo.
func (t *Text) WriteTo(w io.Writer) (int64, error) { return t.b.WriteTo(w) }

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
