package firecracker

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testhost"
)

// A VMM that its guest has taken over can put anything under the names of its sockets. Followed by the daemon, which is root
// and outside of the jail, a link there would lead to another VM's agent, or to any service of the host.
func TestSocketsOfAJailAreNotLinks(t *testing.T) {
	dir := testhost.Dir(t)
	link, name, other := filepath.Join(dir, "link"), filepath.Join(dir, "name"), filepath.Join(dir, "other")
	reached := make(chan struct{}, 9)
	listen := func(path string) net.Listener {
		t.Helper()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				reached <- struct{}{}
				_, _ = bufio.NewReader(c).ReadString('\n') // who hangs up before is no VMM
				_, _ = c.Write([]byte("OK 1\n"))
				_ = c.Close()
			}
		}()
		return l
	}
	if err := os.Symlink(name, link); err != nil { // ours, to a name in the jail
		t.Fatal(err)
	}
	if _, err := dialVsock(t.Context(), link, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not there yet: %v", err)
	}
	own := listen(name)
	c, err := dialVsock(t.Context(), link, 1)
	if err != nil {
		t.Fatalf("its own: %v", err)
	}
	_ = c.Close()
	<-reached
	_ = own.Close() // which removes its name
	listen(other)
	if err := os.Symlink(other, name); err != nil {
		t.Fatal(err)
	}
	if c, err := dialVsock(t.Context(), link, 1); err == nil || !strings.Contains(err.Error(), name+" is no socket") {
		t.Errorf("another's: %v, %v", c, err)
	}
	if err := NewAPI(link).Pause(t.Context()); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("another's API: %v", err)
	}
	if len(reached) != 0 {
		t.Errorf("another was reached %d times", len(reached))
	}
	if err := errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := dialVsock(t.Context(), link, 1); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a pipe: %v", err)
	}
}
