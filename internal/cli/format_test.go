package cli

import "testing"

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", `a\tb`: "a\tb", `{{.Name}}\t{{.State}}\n`: "{{.Name}}\t{{.State}}\n", `{{"\t"}}\t`: `{{"\t"}}` + "\t", `{{.Name`: "{{.Name", `\t{{"\n"}`: "\t" + `{{"\n"}`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}
