package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestLibrariesAreExplained holds that each module the program or its tests import has a row with its reason.
func TestLibrariesAreExplained(t *testing.T) {
	const table = "../../docs/adr/0001-libraries.md"
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	imports, err := exec.Command("go", "list", "-f", `{{range .Imports}}{{.}}
{{end}}{{range .TestImports}}{{.}}
{{end}}{{range .XTestImports}}{{.}}
{{end}}`, "banger/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	args := []string{"list", "-f", "{{with .Module}}{{.Path}}{{end}}"}
	for line := range bytes.Lines(imports) {
		// A dot in the first element is what tells a module from the standard library.
		if p := string(bytes.TrimSpace(line)); strings.Contains(strings.SplitN(p, "/", 2)[0], ".") {
			args = append(args, p)
		}
	}
	modules, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, m := range strings.Fields(string(modules)) {
		if !strings.Contains(string(text), "| `"+m+"` |") {
			t.Errorf("module %s is used but has no row in %s that says why", m, table)
		}
	}
	if len(strings.Fields(string(modules))) == 0 {
		t.Error("no module found at all: the test looks at nothing")
	}
}
