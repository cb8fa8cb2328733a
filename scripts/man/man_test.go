package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banger/internal/cli"
)

func TestAPageForEachCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	if err := write(dir, 1700000000); err != nil {
		t.Fatal(err)
	}
	n := 0
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		n++
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		page, err := os.ReadFile(filepath.Join(dir, name+".1")) //nolint:gosec // the test's own
		if err != nil {
			t.Error(err)
			return
		}
		for _, part := range []string{`"Nov 2023"`, "\n.SH NAME\n" + name + " - ", "\n.SH SYNOPSIS\n", "\n.SH EXAMPLE\n"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("%s has no %q", name, part)
			}
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(cli.Tree())
	run, err := os.ReadFile(filepath.Join(dir, "banger-vm-run.1")) //nolint:gosec // the test's own
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`\fB-d\fP, \fB--detach\fP`, `\fB--name\fP \fINAME\fP`, `\fB--memory\fP \fISIZE\fP (default 1G)`, `\fB-e\fP, \fB--env\fP \fIKEY=VALUE\fP`,
		`\fB-v\fP, \fB--verbose\fP`,
	} {
		if !strings.Contains(string(run), "\n"+want+"\n") {
			t.Errorf("banger-vm-run has no line %q", want)
		}
	}
	if pages, err := filepath.Glob(filepath.Join(dir, "*.1")); err != nil || len(pages) != n || n < 2 {
		t.Errorf("%d pages of %d commands, %v", len(pages), n, err)
	}
}
