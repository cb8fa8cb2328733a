package e2e

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testForwards has one client of ssh lead into the guest (-L, -D) and out of it (-R), by ports and by sockets.
func testForwards(t *testing.T, s *sshBox) {
	s.inside(`mkdir -p /srv/www; echo from the guest > /srv/www/page
		setsid python3 -m http.server -d /srv/www -b 127.0.0.1 8000 < /dev/null > /run/www.log 2>&1 &`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "from the host\n")
			_ = c.Close()
		}
	}()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socks := probe.Addr().String()
	_ = probe.Close()
	sock, there := filepath.Join(s.dir, "l.sock"), filepath.Join(s.dir, "there.sock") // there leads into the guest and out again
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", s.config, "-o", "ExitOnForwardFailure=yes", "-N", "-L", sock+":127.0.0.1:8000", "-D", socks, "-R", "9000:"+l.Addr().String(),
		"-L", there+":/run/back.sock", "-R", "/run/back.sock:"+l.Addr().String(), "tools.vm")
	says, stderr, err := os.Pipe() // its proxy holds stderr too, for as long as it lives
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = stderr
	err = cmd.Start()
	_ = stderr.Close()
	if err != nil {
		t.Fatal(err)
	}
	var errs lockedBuffer
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(&errs, says)
		_ = says.Close()
	}()
	defer func() {
		_ = cmd.Process.Kill() // without a word to anybody
		_ = cmd.Wait()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("the proxy outlives its ssh")
		}
		if t.Failed() {
			t.Log(errs.String())
		}
	}()
	curl := func(args ...string) string {
		out, _ := exec.CommandContext(ctx, "curl", append([]string{"-s", "--noproxy", ""}, args...)...).Output()
		return string(out)
	}
	wait(t, "answer by -L", func() bool { return curl("--unix-socket", sock, "http://guest/page") == "from the guest\n" })
	if got := curl("--socks5-hostname", socks, "http://localhost:8000/page"); got != "from the guest\n" {
		t.Errorf("by -D: %q", got)
	}
	wait(t, "answer by -R", func() bool {
		out, _, _ := s.run(nil, "vm", "exec", "tools", "--", "bash", "-c", "cat < /dev/tcp/127.0.0.1/9000")
		return out == "from the host\n"
	})
	wait(t, "answer by a socket of the guest", func() bool {
		c, err := net.Dial("unix", there)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		b, _ := io.ReadAll(c)
		return string(b) == "from the host\n"
	})
}

// testAgentForwarding has a key of this machine's be seen in the guest, and used there: the guest logs in to itself with it.
func testAgentForwarding(t *testing.T, s *sshBox) {
	key, sock := filepath.Join(s.dir, "key"), filepath.Join(s.dir, "agent.sock")
	s.here(nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key)
	ctx, cancel := context.WithCancel(t.Context())
	agent := exec.CommandContext(ctx, "ssh-agent", "-D", "-a", sock)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = agent.Wait()
	}()
	wait(t, "agent", func() bool { _, err := os.Stat(sock); return err == nil })
	env := []string{"SSH_AUTH_SOCK=" + sock}
	s.here(env, "ssh-add", "-q", key)
	if got := s.here(env, "ssh", "-F", s.config, "-A", "tools.vm", "ssh-add", "-l"); !strings.Contains(got, " mine (ED25519)") {
		t.Errorf("the guest sees %q", got)
	}
	if got := s.here(env, "ssh", "-F", s.config, "-A", "tools.vm", "echo text > /tmp/t; ssh-add -L > /tmp/k.pub; ssh-keygen -Y sign -n file -f /tmp/k.pub < /tmp/t 2>/dev/null"); !strings.Contains(got, "BEGIN SSH SIGNATURE") {
		t.Errorf("signed in the guest: %q", got)
	}
	if out, err := exec.Command("ssh", "-F", s.config, "tools.vm", "ssh-add -l 2>&1").CombinedOutput(); err == nil {
		t.Errorf("without -A the guest sees %q", out)
	}
}
