package agent

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// listenLikeVsock is a vsock listener on another kind of socket: a host has no vsock of its own to itself.
func listenLikeVsock(t *testing.T) (l *vsockListener, dial func() net.Conn) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 8))
	l = newVsockListener(fd, vsockAddr{unix.VMADDR_CID_ANY, 1024})
	t.Cleanup(func() { _ = l.Close() })
	return l, func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

func acceptSoon(t *testing.T, l net.Listener) (net.Conn, error) {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() { c, err := l.Accept(); got <- result{c, err} }()
	select {
	case r := <-got:
		return r.conn, r.err
	case <-time.After(5 * time.Second):
		t.Fatal("a connection that is queued is not accepted")
		return nil, nil
	}
}

// What fails before a connection that is queued does not hide it: the poller does not tell of it a second time.
func TestVsockAcceptGoesOn(t *testing.T) {
	for name, failures := range map[string][]error{
		"dropped by the host": {unix.ECONNABORTED},
		"interrupted":         {unix.EINTR, unix.EINTR},
		"out of files":        {unix.EMFILE, unix.ENFILE},
		"out of memory":       {unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED},
		"by a filter":         {unix.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			l, dial := listenLikeVsock(t)
			accept := l.accept
			l.accept = func(fd int) (int, unix.Sockaddr, error) {
				if len(failures) > 0 {
					err := failures[0]
					failures = failures[1:]
					return -1, nil, err
				}
				return accept(fd)
			}
			dial()
			c, err := acceptSoon(t, l)
			if err != nil {
				t.Fatal(err)
			}
			must(t, c.Close())
		})
	}
}

func TestVsockListenerCloses(t *testing.T) {
	l, _ := listenLikeVsock(t)
	go func() { _ = l.Close() }()
	if _, err := acceptSoon(t, l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	broken, _ := listenLikeVsock(t)
	broken.accept = func(int) (int, unix.Sockaddr, error) { return -1, nil, unix.EINVAL }
	if _, err := acceptSoon(t, broken); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a socket that does not listen: %v", err)
	}
}

// A vsock channel takes modules of its own, and they are loaded after those they may need.
func TestModuleLists(t *testing.T) {
	dir := sysTree(t, map[string]string{"order": "a.ko\nb.ko\n", "order.vsock": "v.ko\n"})
	for channel, want := range map[string][]string{"virtio:banger.agent": {"a.ko", "b.ko"}, "vsock:1024": {"a.ko", "b.ko", "v.ko"}} {
		var got []string
		bad := errors.New("no such symbol")
		err := eachModule(dir, moduleLists(channel), func(file string) error {
			got = append(got, filepath.Base(file))
			return bad // does not stop the others
		})
		if !slices.Equal(got, want) || !errors.Is(err, bad) {
			t.Errorf("%s: %q, %v", channel, got, err)
		}
	}
	if err := loadModules(t.TempDir(), moduleLists("vsock:1024")...); err != nil {
		t.Errorf("a kernel with everything built in: %v", err)
	}
}

// Requests follow each other on one connection. What net/http does between two must not look to it like the client's end.
func TestVsockConnectionsAreUsedAgain(t *testing.T) {
	l, dial := listenLikeVsock(t)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, errors.Join(err, r.Context().Err()))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	conn := dial()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	in := bufio.NewReader(conn)
	for i, body := range []io.Reader{nil, nil, iotest.OneByteReader(strings.NewReader("some text"))} {
		r, err := http.NewRequest(http.MethodPut, "http://guest/", body)
		must(t, err, r.Write(conn))
		answer, err := http.ReadResponse(in, r)
		must(t, err)
		if got, err := io.ReadAll(answer.Body); string(got) != "<nil>" || err != nil {
			t.Errorf("request %d: %s, %v", i, got, err)
		}
	}
}

// What a connection says at its end is what programs of the network look for.
func TestVsockErrors(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	c, other := &vsockConn{file: os.NewFile(uintptr(fds[0]), "here")}, os.NewFile(uintptr(fds[1]), "there")
	must(t, c.SetReadDeadline(time.Unix(1, 0)))
	_, err = c.Read(make([]byte, 1))
	var of net.Error
	if !errors.As(err, &of) || !of.Timeout() {
		t.Errorf("too late: %v", err)
	}
	must(t, c.SetReadDeadline(time.Time{}), other.Close())
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the other end is gone: %v", err)
	}
	must(t, c.Close())
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Firecracker garbles what comes as more than one piece: whatever writes, no write is large. A socket of packets shows them.
func TestVsockWritesAreSmall(t *testing.T) {
	data := make([]byte, 300_000)
	_, _ = rand.Read(data)
	path := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(path, data, 0o600))
	for name, write := range map[string]func(net.Conn) error{
		"write": func(c net.Conn) error { _, err := c.Write(data); return err },
		"text":  func(c net.Conn) error { _, err := io.WriteString(c, string(data)); return err }, //nolint:staticcheck // the way of a string is another one
		"a file": func(c net.Conn) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(c, f)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			must(t, err)
			here, there := &vsockConn{file: os.NewFile(uintptr(fds[0]), "here")}, os.NewFile(uintptr(fds[1]), "there")
			defer there.Close()
			wrote := make(chan error, 1)
			go func() { wrote <- errors.Join(write(here), here.Close()) }()
			var got []byte
			for packet := make([]byte, len(data)); ; {
				n, err := there.Read(packet)
				if err == io.EOF {
					break
				}
				must(t, err)
				if n > 32<<10-512 {
					t.Fatalf("a write of %d bytes", n)
				}
				got = append(got, packet[:n]...)
			}
			must(t, <-wrote)
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes came, or others than the %d written", len(got), len(data))
			}
		})
	}
}
