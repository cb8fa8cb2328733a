package e2e

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"banger/internal/testhost"
)

var writeDocs = flag.Bool("write", false, "TestDocs writes the output of today's commands into the documents (make docs)")

// documents are those with sessions in them, each of which begins on a machine without VMs.
var documents = []string{"README.md", "docs/guide.md"}

// Every session that the documents show is typed here: its output must be what they say, but for what changes from one
// run to the next, such as numbers.
func TestDocs(t *testing.T) {
	beside(t)
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.Root, testhost.SSH)
	for _, name := range documents {
		t.Run(filepath.Base(name), func(t *testing.T) {
			path := filepath.Join(testhost.Repo(t), name)
			text, err := os.ReadFile(path) //nolint:gosec // one of ours
			if err != nil {
				t.Fatal(err)
			}
			s := newSitting(t)
			ids := jobIDs{}
			today := document{strings.Split(string(text), "\n")}.rewrite(func(command, known string) string {
				out := ids.learn(known, s.run(ids.today(command)))
				if !*writeDocs && !same(progressLine.ReplaceAllString(out, ""), progressLine.ReplaceAllString(known+"\n", "")) {
					t.Errorf("$ %s\nprints\n%s\nwhere %s has\n%s", command, out, name, known)
				}
				return out
			})
			if *writeDocs {
				if err := os.WriteFile(path, []byte(today), 0o644); err != nil { //nolint:gosec // for all to read
					t.Fatal(err)
				}
			}
		})
	}
}

// homeWarning is what nobody sees whose home directory is that of /etc/passwd.
var homeWarning = regexp.MustCompile(`(?m)^banger: HOME is .*\n`)

// sitting is a person at a terminal with a home directory of its own, and a banger of its own in the PATH.
type sitting struct {
	t    *testing.T
	box  *box
	home string
	bin  string
}

func newSitting(t *testing.T) *sitting {
	s := &sitting{t: t, box: newBox(t), home: t.TempDir(), bin: t.TempDir()}
	t.Cleanup(func() { _, _, _ = s.box.run(nil, "vm", "delete", "-q", "--all", "--yes") })
	// On every host what the documents show.
	if err := os.WriteFile(filepath.Join(s.box.root, "config.toml"), []byte("[vm]\nvmm = \"qemu\"\nnetwork = \"user\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.box.banger, filepath.Join(s.bin, "banger")); err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"ssh", "scp", "sftp"} { // which look for the home directory in /etc/passwd
		program, err := exec.LookPath(client)
		if err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\n[ -e \"$HOME/.ssh/config\" ] || exec " + program + " -F none \"$@\"\nexec " + program + " -F \"$HOME/.ssh/config\" \"$@\"\n"
		if err := os.WriteFile(filepath.Join(s.bin, client), []byte(script), 0o700); err != nil { //nolint:gosec // to be run
			t.Fatal(err)
		}
	}
	return s
}

// run types one line, and returns what is seen then.
func (s *sitting) run(line string) string {
	s.t.Helper()
	cmd, done := s.command(line)
	defer done()
	cmd.Env = append(cmd.Env, "NO_COLOR=1")
	out, err := cmd.CombinedOutput() // its status is what the document shows by its output, or not
	if errors.Is(err, exec.ErrWaitDelay) || cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		s.t.Fatalf("$ %s\n%v\n%s", line, err, out)
	}
	return homeWarning.ReplaceAllString(s.usual(string(out)), "")
}

// command is a line as the shell gets it. In what is typed and in what is seen the places of this test go by their usual
// names.
func (s *sitting) command(line string) (*exec.Cmd, func()) {
	ctx, done := context.WithTimeout(s.t.Context(), patience)
	typed := strings.NewReplacer("/run/banger", filepath.Join(s.box.root, "run"), "/var/lib/banger", s.box.root).Replace(line)
	cmd := exec.CommandContext(ctx, "bash", "-c", typed)
	cmd.Dir, cmd.WaitDelay = s.home, 5*time.Second
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+s.box.root, "HOME="+s.home, "PATH="+s.bin+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=xterm")
	return cmd, done
}

func (s *sitting) usual(text string) string {
	return strings.NewReplacer(filepath.Join(s.box.root, "run"), "/run/banger", s.box.root, "/var/lib/banger", s.home, "/root").Replace(text)
}
