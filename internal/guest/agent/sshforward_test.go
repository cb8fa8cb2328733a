package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sshagent "golang.org/x/crypto/ssh/agent"

	"banger/internal/testhost"
)

func TestSSHForwards(t *testing.T) {
	h := serveSSHHost(t)
	c := h.dial(t)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = local.Close() }()
	remote, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	localSocket, remoteSocket := filepath.Join(dir, "local"), filepath.Join(dir, "remote")
	localUnix, err := net.Listen("unix", localSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = localUnix.Close() }()
	remoteUnix, err := c.Listen("unix", remoteSocket)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(remoteSocket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket of a forward: %v, %v", st, err)
	}
	dials := map[string]func() (net.Conn, error){
		"-L":          func() (net.Conn, error) { return c.Dial("tcp", local.Addr().String()) },
		"-R":          func() (net.Conn, error) { return net.Dial("tcp", remote.Addr().String()) },
		"-L, sockets": func() (net.Conn, error) { return c.Dial("unix", localSocket) },
		"-R, sockets": func() (net.Conn, error) { return net.Dial("unix", remoteSocket) },
	}
	for name, l := range map[string]net.Listener{"-L": local, "-R": remote, "-L, sockets": localUnix, "-R, sockets": remoteUnix} {
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(conn) // until the half-close
			_, _ = conn.Write(bytes.ToUpper(b))
			_ = conn.Close()
		}()
		conn, err := dials[name]()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); err != nil || string(b) != "HELLO" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		_ = conn.Close()
	}
	refused, _ := net.Listen("tcp", "127.0.0.1:0")
	_ = refused.Close()
	if _, err := c.Dial("tcp", refused.Addr().String()); err == nil {
		t.Error("connected to a port nobody listens on")
	}
	if _, err := c.Dial("unix", filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a socket that is not there: %v", err)
	}
	if _, err := c.Listen("unix", remoteSocket); err == nil {
		t.Error("a socket that is there was taken")
	}
	_ = c.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", remote.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the forward outlives its connection")
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(remoteSocket); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the forward's socket outlives its connection")
		}
	}
}

// TestSSHAgentForwarding reaches the client's keys through the socket that a command is given.
func TestSSHAgentForwarding(t *testing.T) {
	testhost.Need(t, testhost.Root) // the server gives root a socket
	h := serveSSHHost(t)
	c := h.dial(t)
	keys := sshagent.NewKeyring()
	must(t, keys.Add(sshagent.AddedKey{PrivateKey: h.clientKey, Comment: "mine"}), sshagent.ForwardToAgent(c, keys))
	x, err := c.NewSession()
	must(t, err, sshagent.RequestAgentForwarding(x))
	var out syncBuffer
	x.Stdout = &out
	in, err := x.StdinPipe()
	must(t, err, x.Start(`echo "$SSH_AUTH_SOCK"; read line; true`))
	out.await(t, "\n")
	socket := strings.TrimSpace(out.String())
	conn, err := net.Dial("unix", socket)
	must(t, err)
	list, err := sshagent.NewClient(conn).List()
	if err != nil || len(list) != 1 || list[0].Comment != "mine" {
		t.Errorf("keys %v, %v", list, err)
	}
	if fi, err := os.Stat(filepath.Dir(socket)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the socket's directory: %v, %v", fi.Mode(), err)
	}
	must(t, conn.Close(), in.Close(), x.Wait())
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Dir(socket)); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket outlives its session")
		}
	}
}
