package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testhost"
)

// testSSHConfig has this machine's ssh, scp and sftp reach the VM web by its host name, from a home directory with a space in
// its name.
func testSSHConfig(t *testing.T, b *box) {
	testhost.Need(t, testhost.SSH)
	home := filepath.Join(t.TempDir(), "a home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(home, ".ssh", "config")
	banger := func(args ...string) {
		t.Helper()
		cmd := b.command(args...)
		cmd.Env = append(cmd.Env, "HOME="+home)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("banger %v: %v\n%s", args, err, out)
		}
	}
	banger("ssh-config", "--install")
	// Without BANGER_ROOT: the configuration says which daemon is meant.
	client := func(stdin string, args ...string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], append([]string{"-F", config}, args[1:]...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if errs.Len() > 0 {
			t.Logf("%v: %s", args, errs.String())
		}
		return out.String(), err
	}
	if out, err := client("", "ssh", "web.vm", "echo $USER; hostname; exit 42"); out != "root\nweb\n" || err == nil || err.Error() != "exit status 42" {
		t.Errorf("ssh: %q, %v", out, err)
	}
	b.ok("vm", "exec", "web", "--", "sh", "-c", "echo dev:x:1000:1000::/tmp:/bin/sh >> /etc/passwd")
	if out, err := client("through it", "ssh", "dev@web.vm", "id -un; cat"); out != "dev\nthrough it" || err != nil {
		t.Errorf("ssh as another user: %q, %v", out, err)
	}
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	local, back := filepath.Join(home, "data"), filepath.Join(home, "back")
	if err := os.WriteFile(local, data, 0o640); err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back, or others; %v", what, len(got), err)
		}
		_ = os.Remove(back)
	}
	if out, err := client("", "scp", "-p", local, "web.vm:/srv/by scp"); err != nil {
		t.Fatalf("scp: %s, %v", out, err)
	}
	if out, err := client("", "scp", "-p", "web.vm:/srv/by scp", back); err != nil {
		t.Fatalf("scp: %s, %v", out, err)
	}
	same("scp")
	batch := `put "` + local + `" /srv/by-sftp` + "\n" + `get /srv/by-sftp "` + back + `"` + "\nls -l /srv/by-sftp\n"
	if out, err := client(batch, "sftp", "-b", "-", "web.vm"); err != nil || !strings.Contains(out, "by-sftp") {
		t.Errorf("sftp: %q, %v", out, err)
	}
	same("sftp")
	if out, err := client("", "ssh", "none.vm", "true"); err == nil {
		t.Errorf("ssh to a VM there is not: %q", out)
	}
	banger("ssh-config", "--uninstall")
	if _, err := os.Lstat(config); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", config, err)
	}
}

// testOldSCP has scp speak its older protocol, to an scp in the guest.
func testOldSCP(t *testing.T, s *sshBox) {
	local, back := filepath.Join(s.dir, "scp-here"), filepath.Join(s.dir, "scp-back")
	if err := os.WriteFile(local, numbers(100_000), 0o640); err != nil {
		t.Fatal(err)
	}
	s.here(nil, "scp", "-F", s.config, "-p", "-O", local, "tools.vm:/srv/scp-there")
	s.here(nil, "scp", "-F", s.config, "-p", "-O", "tools.vm:/srv/scp-there", back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, numbers(100_000)) {
		t.Errorf("%d bytes came back, or others; %v", len(got), err)
	}
	if got := s.inside("stat -c '%a %s' /srv/scp-there"); got != "640 100000\n" {
		t.Errorf("in the guest: mode and size %q", got)
	}
}
