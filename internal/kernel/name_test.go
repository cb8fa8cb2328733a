package kernel

import (
	"strings"
	"testing"

	"banger/internal/catalog"

	"banger/internal/vm"
)

func TestNameFor(t *testing.T) {
	for source, want := range map[string]string{
		DefaultSource:             vm.DefaultKernel,
		"apt:linux-image-amd64":   "linux-image-amd64",
		"installed":               "installed",
		"installed:6.1.0-9-amd64": "6.1.0-9-amd64",
		"/tmp/linux-image-6.1.0-9_6.1.27-1_amd64.deb": "linux-image-6.1.0-9",
		"/boot/VMLinuz+x":                        "vmlinuz-x",
		"apt:linux-image:amd64":                  "linux-image-amd64",
		"/x/" + strings.Repeat("a", 99) + ".deb": strings.Repeat("a", 63),
	} {
		if got := nameFor(source); got != want || (&catalog.Catalog{}).CheckName(got) != nil {
			t.Errorf("nameFor(%q) = %q, want %q", source, got, want)
		}
	}
}
