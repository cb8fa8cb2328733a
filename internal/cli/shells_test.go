package cli

import (
	"strings"
	"testing"

	"banger/internal/testhost"
)

// TestShellsComplete has each shell read our script and complete what is typed, up to the names of VMs and the ids of jobs
// that there are.
func TestShellsComplete(t *testing.T) {
	for _, c := range []struct {
		shell testhost.Facility
		start []string
		setUp string
	}{
		{testhost.Bash, []string{"bash", "--norc", "--noprofile", "-i"}, "source " + testhost.BashCompletion + "; source <(banger completion bash)"},
		{testhost.Zsh, []string{"zsh", "-f", "-i"}, "autoload -U compinit; compinit -D; source <(banger completion zsh)"},
		{testhost.Fish, []string{"fish", "--no-config", "-i"}, "banger completion fish | source"},
	} {
		t.Run(string(c.shell), func(t *testing.T) {
			testhost.Need(t, c.shell)
			root, env := sandbox(t)
			mustRun(t, env, "vm", "create", "--name", "quokka")
			mustRun(t, env, "vm", "run", "-d", "--name", "numbat")
			mustRun(t, env, "vm", "exec", "-d", "numbat", "--", "true")
			_, tty, s := onTerminalRun(t, append(env, "HOME="+root, "XDG_RUNTIME_DIR="+root, "HISTFILE=", "TERM=dumb"), c.start[0], c.start[1:]...)
			typed := func(text string) {
				t.Helper()
				if _, err := tty.WriteString(text); err != nil {
					t.Fatal(err)
				}
			}
			typed(c.setUp + "; echo set\"\"up\n")
			s.wait(t, "setup")
			for _, want := range []struct{ typed, shown string }{
				{"banger vm stop qu\t", "okka"}, // what the shell adds; it does not draw what was there
				{"banger vm cp nu\t", "mbat:"},
				{"banger vm ssh root@nu\t", "mbat"},
				{"banger vm logs --exec 01\t", "a0b1c2d3e4"},
				{"banger vm signal numbat 01a0b1c2d3e4 SIGK\t", "ILL"},
				{"banger im\t", "age"},
			} {
				from := len(s.String())
				typed(want.typed)
				s.waitFor(t, want.typed+" completed", func(shown string) bool {
					_, after, _ := strings.Cut(shown[min(from, len(shown)):], want.typed[:len(want.typed)-1])
					return strings.Contains(after, want.shown)
				})
				typed("\x15") // nothing is run
			}
			typed("exit\n")
		})
	}
}
