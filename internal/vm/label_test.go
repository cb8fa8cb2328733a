package vm

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidateLabels(t *testing.T) {
	many := map[string]string{}
	for i := range MaxLabels + 1 {
		many[fmt.Sprint("k", i)] = ""
	}
	for name, c := range map[string]struct {
		labels map[string]string
		ok     bool
	}{
		"none":         {nil, true},
		"usual":        {map[string]string{"team": "web", "ci.example/run-id": "17 of 20", "empty": ""}, true},
		"not ASCII":    {map[string]string{"who": "Zoë"}, true},
		"no key":       {map[string]string{"": "x"}, false},
		"blank in key": {map[string]string{"a b": "x"}, false},
		"= in key":     {map[string]string{"a=b": "x"}, false},
		"dash first":   {map[string]string{"-a": "x"}, false},
		"slash last":   {map[string]string{"a/": "x"}, false},
		"long key":     {map[string]string{strings.Repeat("k", MaxLabelKey+1): "x"}, false},
		"long value":   {map[string]string{"k": strings.Repeat("v", MaxLabelValue+1)}, false},
		"longest":      {map[string]string{strings.Repeat("k", MaxLabelKey): strings.Repeat("v", MaxLabelValue)}, true},
		"two lines":    {map[string]string{"k": "a\nb"}, false},
		"escape":       {map[string]string{"k": "\x1b[2J"}, false},
		"no UTF-8":     {map[string]string{"k": "\xff"}, false},
		"too many":     {many, false},
	} {
		if err := ValidateLabels(c.labels); (err == nil) != c.ok || err != nil && CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
