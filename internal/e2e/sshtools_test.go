package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testhost"
)

// sshBox is a VM with what people have on their servers, and how this machine's ssh reaches it.
type sshBox struct {
	*box
	config string // for ssh -F
	dir    string
}

func (s *sshBox) with(t *testing.T) *sshBox { return &sshBox{s.box.with(t), s.config, s.dir} }

// here runs a program of this machine, with ssh on its way to tools.vm.
func (s *sshBox) here(env []string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), "HOME="+s.dir, "LC_ALL=C.UTF-8", "GIT_SSH_COMMAND=ssh -F "+s.config, "RSYNC_RSH=ssh -F "+s.config,
		"ANSIBLE_SSH_ARGS=-F "+s.config, "ANSIBLE_NOCOLOR=1", "ANSIBLE_HOME="+s.dir, "ANSIBLE_LOCAL_TEMP="+s.dir,
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"), env...)
	cmd.Dir = s.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("%v: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return out.String()
}

// inside runs a shell's script in the guest.
func (s *sshBox) inside(script string) string {
	s.t.Helper()
	return s.ok("vm", "exec", "tools", "--", "sh", "-ec", script)
}

// TestSSHTools has the programs that people use over ssh meet a VM, none of them knowing that it is one.
func TestSSHTools(t *testing.T) {
	beside(t)
	testhost.Need(t, testhost.Real, testhost.QEMU, testhost.SSH)
	testhost.SeedTools(t)
	s := &sshBox{box: newBox(t), dir: testhost.Dir(t)}
	s.vm("tools", "--image", testhost.ToolsImage)
	s.show("tools") // it fails where the VM has other drivers than it has to
	s.config = filepath.Join(s.dir, "ssh_config")
	if err := os.WriteFile(s.config, []byte(s.ok("ssh-config")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *sshBox)
	}{
		{"rsync", testRSync}, {"old scp", testOldSCP}, {"git", testGit}, {"sshfs", testSSHFS}, {"ansible", testAnsible}, {"forwards", testForwards},
		{"agent forwarding", testAgentForwarding}, {"vim", testVim}, {"top", testTop}, {"job control", testJobControl},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s.with(t)) })
	}
}

// testRSync sends a thousand files and fetches them again.
func testRSync(t *testing.T, s *sshBox) {
	testhost.Need(t, testhost.RSync)
	src, back := filepath.Join(s.dir, "tree"), filepath.Join(s.dir, "tree-back")
	for i := range 1000 {
		dir := filepath.Join(src, fmt.Sprintf("d%02d", i%37))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file %d", i)), numbers(i*7), os.FileMode(0o600|i%0o200)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d01", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	want := digestTree(t, src)
	s.here(nil, "rsync", "-a", src+"/", "tools.vm:/srv/tree/")
	if got := s.inside("find /srv/tree -type f | wc -l"); got != "1000\n" {
		t.Errorf("in the guest there are %s files", got)
	}
	s.here(nil, "rsync", "-a", "tools.vm:/srv/tree/", back+"/")
	if got := digestTree(t, back); got != want {
		t.Error("another tree came back")
	}
	if err := os.WriteFile(filepath.Join(src, "d00", "file 0"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.here(nil, "rsync", "-ai", "--delete", src+"/", "tools.vm:/srv/tree/"); strings.Count(got, "<f") != 1 || !strings.Contains(got, "d00/file 0") {
		t.Errorf("of one change rsync sends %q", got)
	}
}

// digestTree is one of all names, modes and contents.
func digestTree(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %v\n", rel, fi.Mode())
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%x\n", sha256.Sum256(b))
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%q\n", to)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func testGit(t *testing.T, s *sshBox) {
	s.inside(`git init -q --bare -b main /srv/repo.git
		git clone -q /srv/repo.git /tmp/w 2>/dev/null; cd /tmp/w; echo one > f; git add f
		git -c user.name=a -c user.email=a@b commit -qm first; git push -q origin HEAD:main`)
	clone := filepath.Join(s.dir, "clone")
	s.here(nil, "git", "clone", "-q", "tools.vm:/srv/repo.git", clone)
	if b, err := os.ReadFile(filepath.Join(clone, "f")); string(b) != "one\n" || err != nil {
		t.Fatalf("cloned %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(clone, "g"), numbers(300_000), 0o644); err != nil {
		t.Fatal(err)
	}
	s.here(nil, "git", "-C", clone, "add", "g")
	s.here(nil, "git", "-C", clone, "commit", "-qm", "second")
	s.here(nil, "git", "-C", clone, "push", "-q", "origin", "HEAD:main")
	if here, there := s.here(nil, "git", "-C", clone, "rev-parse", "HEAD"), s.inside("git -C /srv/repo.git rev-parse main"); here != there {
		t.Errorf("pushed %q, the guest has %q", here, there)
	}
}

func testSSHFS(t *testing.T, s *sshBox) {
	testhost.Need(t, testhost.SSHFS)
	mnt := filepath.Join(s.dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	s.inside("mkdir /srv/shared && echo theirs > /srv/shared/a")
	s.here(nil, "sshfs", "-F", s.config, "tools.vm:/srv/shared", mnt)
	t.Cleanup(func() { s.here(nil, "fusermount3", "-u", mnt) })
	if b, err := os.ReadFile(filepath.Join(mnt, "a")); string(b) != "theirs\n" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	big := numbers(2 << 20)
	if err := os.WriteFile(filepath.Join(mnt, "b"), big, 0o640); err != nil {
		t.Error(err)
	}
	if err := os.Rename(filepath.Join(mnt, "b"), filepath.Join(mnt, "c")); err != nil {
		t.Error(err)
	}
	if got, want := s.inside("sha256sum < /srv/shared/c; ls /srv/shared; stat -c %a /srv/shared/c"), fmt.Sprintf("%x  -\na\nc\n640\n", sha256.Sum256(big)); got != want {
		t.Errorf("the guest has %q, want %q", got, want)
	}
}

func testAnsible(t *testing.T, s *sshBox) {
	testhost.Need(t, testhost.Ansible)
	// Through ssh's input here, by sftp below.
	if got := s.here([]string{"ANSIBLE_PIPELINING=1"}, "ansible", "all", "-i", "tools.vm,", "-m", "ping"); !strings.Contains(got, `"ping": "pong"`) {
		t.Errorf("ping: %s", got)
	}
	src := filepath.Join(s.dir, "copied")
	if err := os.WriteFile(src, numbers(100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.here(nil, "ansible", "all", "-i", "tools.vm,", "-m", "copy", "-a", "src="+src+" dest=/srv/copied mode=0640 owner=nobody"); !strings.Contains(got, `"changed": true`) {
		t.Errorf("copy: %s", got)
	}
	if got, want := s.inside("sha256sum < /srv/copied; stat -c '%a %U' /srv/copied"), fmt.Sprintf("%x  -\n640 nobody\n", sha256.Sum256(numbers(100_000))); got != want {
		t.Errorf("the guest has %q, want %q", got, want)
	}
}

// terminal starts a command over ssh -t, under a terminal of 30 lines and 90 columns.
func (s *sshBox) terminal(command string) (cmd *exec.Cmd, tty *os.File, seen *lockedBuffer) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, "ssh", "-F", s.config, "-t", "tools.vm", command)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 90})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = tty.Close()
	})
	seen = &lockedBuffer{}
	go func() { _, _ = io.Copy(seen, tty) }()
	return cmd, tty, seen
}

// keys types what a person would.
func keys(t *testing.T, tty *os.File, text string) {
	t.Helper()
	if _, err := tty.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// ended wants a command to end by itself, with this exit code.
func ended(t *testing.T, cmd *exec.Cmd, seen *lockedBuffer, code int) {
	t.Helper()
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d: %q", got, code, seen.String())
	}
}

func testVim(t *testing.T, s *sshBox) {
	cmd, tty, seen := s.terminal("vim.tiny -u NONE -N /srv/poem")
	seen.until(t, "/srv/poem") // its last line: the screen is drawn
	keys(t, tty, "ione\rtwo\x1b")
	seen.until(t, "two")
	keys(t, tty, ":set lines? columns?\r")
	seen.until(t, "columns=90")
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 20, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(seen.String(), "columns=60"); time.Sleep(200 * time.Millisecond) {
		keys(t, tty, "\x1b:set lines? columns?\r") // it may have been typed before the new size came
		if time.Now().After(end) {
			t.Fatalf("vim does not learn the new size: %q", seen.String())
		}
	}
	keys(t, tty, "\r\x1b:wq\r")
	ended(t, cmd, seen, 0)
	if got := s.inside("cat /srv/poem"); got != "one\ntwo\n" {
		t.Errorf("vim wrote %q", got)
	}
}

func testTop(t *testing.T, s *sshBox) {
	cmd, tty, seen := s.terminal("top -d 1")
	seen.until(t, "load average")
	seen.until(t, "COMMAND")
	keys(t, tty, "q")
	ended(t, cmd, seen, 0)
}

func testJobControl(t *testing.T, s *sshBox) {
	cmd, tty, seen := s.terminal("PS1='ready> ' bash --norc --noprofile -i")
	seen.until(t, "ready> ")
	keys(t, tty, "sleep 1000\r")
	seen.until(t, "sleep 1000\r\n")
	wait(t, "sleep in the guest", func() bool { out, _, _ := s.run(nil, "vm", "top", "tools"); return strings.Contains(out, "sleep 1000") })
	keys(t, tty, "\x1a") // Ctrl-Z
	seen.until(t, "Stopped")
	keys(t, tty, "bg; jobs -r; echo wi\"\"th\r")
	seen.until(t, "Running")
	seen.until(t, "with\r\n")
	keys(t, tty, "fg\r")
	wait(t, "sleep in the foreground", func() bool { return strings.Count(seen.String(), "sleep 1000\r\n") >= 2 })
	keys(t, tty, "\x03") // Ctrl-C
	seen.until(t, "^C")
	keys(t, tty, "exit $?\r")
	ended(t, cmd, seen, 130)
}
