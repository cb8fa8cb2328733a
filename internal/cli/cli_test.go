package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// walk visits every command.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, f)
	}
}

// whole is the tree as it is when a command runs: cobra adds what is missing only then.
func whole() *cobra.Command {
	root := (&app{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// TestHelp: every command explains itself, and its examples are command lines that parse.
func TestHelp(t *testing.T) {
	walk(whole(), func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks Short, Long or Example", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			for _, part := range strings.Split(line, "|") {
				checkExample(t, part)
			}
		}
	})
}

func checkExample(t *testing.T, line string) {
	line, _, _ = strings.Cut(line, "   ") // what follows explains
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != "banger" {
		return
	}
	found, rest, err := whole().Find(words[1:])
	if err != nil || !found.Runnable() {
		t.Errorf("example %q: %v", line, err)
		return
	}
	if err := found.ParseFlags(rest); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
}

func TestParsePlace(t *testing.T) {
	for s, want := range map[string]place{
		"web:/srv": {"web", "/srv"}, "web:srv": {"web", "/srv"}, "web:": {"web", "/"}, "web:/a:b": {"web", "/a:b"},
		"-": {"", "-"}, "a": {"", "a"}, "./web:/srv": {"", "./web:/srv"}, "/x:y": {"", "/x:y"}, "a/b:c": {"", "a/b:c"}, ":x": {"", ":x"}, "../a:b": {"", "../a:b"},
	} {
		if got := parsePlace(s); got != want {
			t.Errorf("parsePlace(%q) = %+v, want %+v", s, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	if got, want := quoteAll([]string{"sh", "-c", "exit 42", "", "it's", "$HOME", "a\nb", "é"}), `sh -c 'exit 42' '' 'it'\''s' '$HOME' 'a`+"\n"+`b' 'é'`; got != want {
		t.Errorf("quoteAll = %q, want %q", got, want)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes",
		119 * time.Minute: "119 minutes", 47 * time.Hour: "47 hours", 48 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

// TestOneCommandAlone: the tree with a single command of 'banger vm' is the whole one as far as that command goes.
func TestOneCommandAlone(t *testing.T) {
	all, _, err := whole().Find([]string{"vm"})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(all.Commands()); got != len(vmCommands) {
		t.Errorf("%d commands, %d of them by name", got, len(vmCommands))
	}
	for _, want := range all.Commands() {
		root := (&app{}).root("vm", want.Name(), "--flag")
		if n := len(root.Commands()); n != 1 {
			t.Errorf("vm %s: %d groups are made", want.Name(), n)
		}
		got, rest, err := root.Find([]string{"vm", want.Name(), "--flag"})
		if err != nil || got.CommandPath() != want.CommandPath() || got.Use != want.Use || len(rest) != 1 {
			t.Errorf("vm %s: found %v, %v", want.Name(), got, err)
		}
	}
	for _, args := range [][]string{{}, {"vm"}, {"vm", "exce"}, {"-v", "vm", "exec"}, {"help", "vm"}} {
		if n := len((&app{}).root(args...).Commands()); n < 10 {
			t.Errorf("%q: only %d commands", args, n)
		}
	}
}
