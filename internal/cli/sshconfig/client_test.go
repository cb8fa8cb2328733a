package sshconfig

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/testhost"
)

// rootVar says, to this test binary, where keys lie: it is the banger that the ssh client runs, then.
const rootVar = "BANGER_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(rootVar); root != "" && len(os.Args) == 4 && os.Args[1] == "vm" {
		if err := banger(root, os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// banger knows one VM, web, which answers each command by its own words and the user's name.
func banger(root, verb, host string) error {
	b, err := os.ReadFile(filepath.Join(root, "host"))
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return err
	}
	if verb == "known-hosts" && (host == "web.vm" || host == "[web.vm]:2222") {
		fmt.Print(host + " " + string(ssh.MarshalAuthorizedKey(key.PublicKey())))
		return nil
	}
	if verb != "proxy" || host != "web.vm" {
		return fmt.Errorf("there is no VM %q", host)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	conf.AddHostKey(key)
	conn, channels, requests, err := ssh.NewServerConn(stdio{}, conf)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, in, err := c.Accept()
		if err != nil {
			return err
		}
		for r := range in {
			_ = r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			fmt.Fprintf(ch, "%s %s\n", conn.User(), r.Payload[4:])
			_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 42})
			_ = ch.Close()
		}
	}
	return nil
}

type stdio struct{}

func (stdio) Read(p []byte) (int, error)       { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error)      { return os.Stdout.Write(p) }
func (stdio) Close() error                     { return os.Stdout.Close() }
func (stdio) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (stdio) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (stdio) SetDeadline(time.Time) error      { return nil }
func (stdio) SetReadDeadline(time.Time) error  { return nil }
func (stdio) SetWriteDeadline(time.Time) error { return nil }

func newKey(t *testing.T, path string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, string(pem.EncodeToMemory(b)), 0o600)
}

// TestRealClient has this machine's ssh client read the configuration, with what is hard to quote in every path, included
// as --install does.
func TestRealClient(t *testing.T) {
	testhost.Need(t, testhost.SSH)
	dir := filepath.Join(t.TempDir(), `a b'c"d\e%h$f;#*[g]?`)
	self := filepath.Join(dir, "banger")
	put(t, self, "", 0o700)
	copyOf(t, self)
	newKey(t, filepath.Join(dir, "host"))
	newKey(t, filepath.Join(dir, "id"))
	text, err := Host{Banger: self, Env: []string{rootVar + "=" + dir}, IdentityFile: filepath.Join(dir, "id")}.Text()
	if err != nil {
		t.Fatal(err)
	}
	p := In(dir)
	// The user's own configuration comes after ours, and holds for other hosts as it did.
	put(t, p.Config(), "User somebody\nHost *\n  StrictHostKeyChecking no\n  ControlMaster auto\n  ControlPath "+filepath.Dir(dir)+"/shared\n", 0o600)
	if _, err := p.Install(text); err != nil {
		t.Fatal(err)
	}
	client := func(args ...string) (out, errs string, code int) {
		t.Helper()
		cmd := exec.Command("ssh", append([]string{"-F", p.Config()}, args...)...)
		var o, e strings.Builder
		cmd.Stdout, cmd.Stderr = &o, &e
		_ = cmd.Run()
		return o.String(), e.String(), cmd.ProcessState.ExitCode()
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"web.vm", "hello"}, "root hello\n"},
		{[]string{"WEB.vm", "hello"}, "root hello\n"},
		{[]string{"-p", "2222", "web.vm", "hello"}, "root hello\n"},
		{[]string{"dev@web.vm", "a  b"}, "dev a  b\n"},
		{[]string{"-l", "dev", "web.vm", "x"}, "dev x\n"},
	} {
		if out, errs, code := client(c.args...); out != c.want || code != 42 || errs != "" {
			t.Errorf("ssh %q: %q, %q, exit status %d", c.args, out, errs, code)
		}
	}
	if out, errs, code := client("other.vm", "hello"); code != 255 || out != "" || !strings.Contains(errs, `there is no VM "other.vm"`) {
		t.Errorf("another VM: %q, %q, %d", out, errs, code)
	}
	if out, _, _ := client("-G", "example.org"); !strings.Contains(out, "\nuser somebody\n") && !strings.HasPrefix(out, "user somebody\n") || strings.Contains(out, "banger") {
		t.Errorf("another host: %s", out)
	}
	if out, _, _ := client("-G", `x'y.vm`); strings.Contains(out, "banger") {
		t.Errorf("a host name that leaves its quotes: %s", out)
	}

	newKey(t, filepath.Join(dir, "other"))
	b, err := os.ReadFile(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	// The VM's key is another than the one that is known.
	if out, err := exec.Command("ssh", "-F", p.Config(), "-o", "KnownHostsCommand=/bin/echo web.vm "+public(t, b), "web.vm", "x").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "verification failed") {
		t.Errorf("another key: %s, %v", out, err)
	}
	if entries, _ := filepath.Glob(filepath.Dir(dir) + "/shared*"); len(entries) > 0 {
		t.Errorf("a connection is shared: %v", entries)
	}
}

func public(t *testing.T, private []byte) string {
	t.Helper()
	key, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
}

// copyOf puts this test binary at path: a program in a directory with another name than go gave it.
func copyOf(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTextRefusesLineEnds(t *testing.T) {
	for _, h := range []Host{{Banger: "/a\nHost *", IdentityFile: "/x"}, {Banger: "/a", IdentityFile: "/x\r"}, {Banger: "/a", Env: []string{"A=\n"}}} {
		if text, err := h.Text(); err == nil {
			t.Errorf("%+v: %s", h, text)
		}
	}
}
