package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest"
	"banger/internal/testhost"
)

// sshHost is an agent that the machine's own ssh client can reach.
type sshHost struct {
	server     *Server
	addr, port string
	key, known string // files
	hostKey    ssh.PublicKey
	clientKey  ed25519.PrivateKey
}

func newKey(t *testing.T) (pub ssh.PublicKey, private ed25519.PrivateKey, pemText []byte) {
	t.Helper()
	edPub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err = ssh.NewPublicKey(edPub)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return pub, private, pem.EncodeToMemory(block)
}

func serveSSHHost(t *testing.T) *sshHost {
	t.Helper()
	s, socket := serveAgent(t)
	hostPub, _, hostPEM := newKey(t)
	pub, private, clientPEM := newKey(t)
	s.conf.Store(&guest.Configure{ID: "x", SSHHostKeyPEM: string(hostPEM), AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(pub))}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	client := guest.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				stream, err := client.SSH(context.Background())
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(stream, conn); _ = stream.Close() }()
				_, _ = io.Copy(conn, stream)
			}()
		}
	}()
	dir := t.TempDir()
	h := &sshHost{server: s, addr: l.Addr().String(), key: filepath.Join(dir, "key"), known: filepath.Join(dir, "known"), hostKey: hostPub, clientKey: private}
	_, h.port, _ = net.SplitHostPort(h.addr)
	known := fmt.Sprintf("vm %s", ssh.MarshalAuthorizedKey(hostPub))
	if err := errors.Join(os.WriteFile(h.key, clientPEM, 0o600), os.WriteFile(h.known, []byte(known), 0o600)); err != nil {
		t.Fatal(err)
	}
	return h
}

// options are those of ssh, scp and sftp alike.
func (h *sshHost) options() []string {
	return []string{"-F", "none", "-i", h.key, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=" + h.known, "-o", "HostKeyAlias=vm",
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "Port=" + h.port, "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"}
}

// ssh runs the real client and returns its output and status.
func (h *sshHost) ssh(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	testhost.Need(t, testhost.SSH)
	cmd := exec.Command("ssh", append(h.options(), args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(os.Environ(), "LC_TEST=hello", "SECRET=no")
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestSSHCommands(t *testing.T) {
	testhost.Need(t, testhost.Root) // the server starts root's shell, with root's home
	h := serveSSHHost(t)
	big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	tests := map[string]struct {
		stdin  string
		args   []string
		stdout string
		stderr string
		status int
	}{
		"output, errors and status": {"", []string{"root@127.0.0.1", "echo out; echo err >&2; exit 42"}, "out\n", "err\n", 42},
		"the words are a shell's":   {"", []string{"root@127.0.0.1", "printf %s,", "'a b'", "c"}, "a b,c,", "", 0},
		"stdin to its end":          {big, []string{"root@127.0.0.1", "cat"}, big, "", 0},
		"no stdin":                  {"", []string{"-n", "root@127.0.0.1", "cat; echo end"}, "end\n", "", 0},
		"a missing command":         {"", []string{"root@127.0.0.1", "exec no-such-thing 2>/dev/null"}, "", "", 127},
		"locale passes, others not": {"", []string{"-o", "SendEnv=LC_TEST SECRET", "root@127.0.0.1", `echo "$LC_TEST,$SECRET"`}, "hello,\n", "", 0},
		"killed":                    {"", []string{"root@127.0.0.1", "kill -KILL $$"}, "", "", 255},
		"shell from stdin":          {"echo $((6*7)); exit 3\n", []string{"-T", "root@127.0.0.1"}, "42\n", "", 3},
		"terminal":                  {"", []string{"-tt", "root@127.0.0.1", "tty >/dev/null && echo terminal $TERM"}, "terminal xterm-test\r\n", "", 0},
		"unknown user":              {"", []string{"no-such-user@127.0.0.1", "true"}, "", "no-such-user@127.0.0.1: Permission denied (publickey).\r\n", 255},
		"unknown subsystem":         {"", []string{"-s", "root@127.0.0.1", "netconf"}, "", "subsystem request failed on channel 0\r\n", 255},
	}
	t.Setenv("TERM", "xterm-test")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := h.ssh(t, tt.stdin, tt.args...)
			if stdout != tt.stdout || stderr != tt.stderr || status != tt.status {
				t.Errorf("got %q, %q, %d", tail(stdout), tail(stderr), status)
			}
		})
	}
}

// TestSSHKeysAreReplaced: what Configure brings counts for the next connection.
func TestSSHKeysAreReplaced(t *testing.T) {
	h := serveSSHHost(t)
	if _, stderr, status := h.ssh(t, "", "root@127.0.0.1", "true"); status != 0 {
		t.Fatal(stderr)
	}
	old := h.server.configured()
	pub, _, _ := newKey(t)
	h.server.conf.Store(&guest.Configure{SSHHostKeyPEM: old.SSHHostKeyPEM, AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(pub))}})
	if _, stderr, status := h.ssh(t, "", "root@127.0.0.1", "true"); status != 255 || !strings.Contains(stderr, "Permission denied") {
		t.Errorf("the old key still opens: %d, %s", status, stderr)
	}
	_, _, other := newKey(t)
	h.server.conf.Store(&guest.Configure{SSHHostKeyPEM: string(other), AuthorizedKeys: old.AuthorizedKeys})
	if _, stderr, status := h.ssh(t, "", "root@127.0.0.1", "true"); status != 255 || !strings.Contains(stderr, "Host key verification failed") {
		t.Errorf("another host key is not seen: %d, %s", status, stderr)
	}
	h.server.conf.Store(nil)
	if _, _, status := h.ssh(t, "", "root@127.0.0.1", "true"); status != 255 {
		t.Errorf("status %d without a configuration", status)
	}
}

func TestParseAuthorized(t *testing.T) {
	pub, _, _ := newKey(t)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	for in, ok := range map[string]bool{line: true, line + " me@home": true, `from="10.0.0.1" ` + line: false, "": false, "ssh-ed25519 AAAA": false, line + "\n" + line: false} {
		if keys, err := parseAuthorized([]string{in}); (err == nil) != ok || (ok && len(keys) != 1) {
			t.Errorf("%q: %v, %v", in, keys, err)
		}
	}
}

// dialSSH connects with Go's client, for what the real one cannot be asked from a test.
func (h *sshHost) dial(t *testing.T) *ssh.Client {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(h.clientKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(h.hostKey)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSSHPasswordsAreRefused(t *testing.T) {
	h := serveSSHHost(t)
	_, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.Password("")}, HostKeyCallback: ssh.FixedHostKey(h.hostKey)})
	if err == nil {
		t.Error("logged in by password")
	}
}

func TestSSHTerminalAndSignals(t *testing.T) {
	h := serveSSHHost(t)
	c := h.dial(t)
	x, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.RequestPty("xterm", 50, 132, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	var out syncBuffer
	x.Stdout = &out
	if err := x.Start(`stty size; trap 'stty size' WINCH; trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done`); err != nil {
		t.Fatal(err)
	}
	out.await(t, "50 132\r\nready")
	if err := x.WindowChange(20, 70); err != nil {
		t.Fatal(err)
	}
	out.await(t, "20 70")
	if err := x.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := (*ssh.ExitError)(nil); !errors.As(x.Wait(), &e) || e.ExitStatus() != 9 {
		t.Errorf("the trap's status did not come: %v", e)
	}

	x, _ = c.NewSession()
	err = x.Run("kill -TERM $$")
	if e := (*ssh.ExitError)(nil); !errors.As(err, &e) || e.Signal() != "TERM" {
		t.Errorf("ended by %v, want signal TERM", err)
	}
}

// TestSSHClientGoesAway: what it ran is hung up.
func TestSSHClientGoesAway(t *testing.T) {
	h := serveSSHHost(t)
	c := h.dial(t)
	x, _ := c.NewSession()
	var out syncBuffer
	x.Stdout = &out
	if err := x.Start("echo $$; sleep 600"); err != nil {
		t.Fatal(err)
	}
	out.await(t, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command outlives its client")
		}
	}
}

// What reads ssh's output may end first, as head does: the command then gets SIGPIPE, and nobody waits for it for ever.
func TestSSHOutputThatNobodyReads(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.SSH)
	h := serveSSHHost(t)
	told := filepath.Join(t.TempDir(), "told")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append(h.options(), "root@127.0.0.1", "yes; echo $? >"+told+"; exit 7")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(out, make([]byte, 2))
	_ = out.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); err != nil || code != 7 {
		t.Errorf("ssh: exit status %d, %v, %v", code, ctx.Err(), err)
	}
	if got, err := os.ReadFile(told); string(got) != "141\n" {
		t.Errorf("its status was %q, want 128 and SIGPIPE; %v", got, err)
	}
}

// syncBuffer collects output while a test looks at it.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) await(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.String(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %q, got %q", want, s)
		}
	}
}
