package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// vsockListener is a net.Listener on AF_VSOCK, which package net does not know.
type vsockListener struct {
	file   *os.File // non-blocking, so that Accept waits in the runtime's poller
	addr   vsockAddr
	accept func(fd int) (int, unix.Sockaddr, error) // accept4(2), but in tests

	closing sync.Once
	closed  chan struct{}
}

type vsockAddr struct{ cid, port uint32 }

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return fmt.Sprintf("vsock:%d:%d", a.cid, a.port) }

func listenVsock(port uint32) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return newVsockListener(fd, vsockAddr{unix.VMADDR_CID_ANY, port}), nil
}

func newVsockListener(fd int, addr vsockAddr) *vsockListener {
	accept := func(fd int) (int, unix.Sockaddr, error) {
		return unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	}
	return &vsockListener{file: os.NewFile(uintptr(fd), "vsock"), addr: addr, accept: accept, closed: make(chan struct{})}
}

const (
	acceptPause    = 5 * time.Millisecond // after an error of the kernel's; doubled up to acceptPauseMax
	acceptPauseMax = time.Second
)

// Accept fails only when the listener is closed, or is none. A guest out of files or memory gets over it, and the end of
// the listener would be that of the machine.
func (l *vsockListener) Accept() (net.Conn, error) {
	for pause := acceptPause; ; pause = min(2*pause, acceptPauseMax) {
		conn, err := l.acceptOne()
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, unix.EBADF), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSOCK), errors.Is(err, unix.EOPNOTSUPP):
			return nil, fmt.Errorf("accept on %v: %w", l.addr, err)
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
		if pause == acceptPause {
			say("accept on %v: %v", l.addr, err)
		}
	}
}

func (l *vsockListener) acceptOne() (net.Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var from unix.Sockaddr
	var acceptErr error
	err = raw.Read(func(listening uintptr) bool {
		for {
			fd, from, acceptErr = l.accept(int(listening))
			switch {
			case errors.Is(acceptErr, unix.EAGAIN):
				return false
			case errors.Is(acceptErr, unix.ECONNABORTED), errors.Is(acceptErr, unix.EINTR):
				// The host dropped one before we took it, as it does after a restore. Others may be queued behind it, which
				// the poller, waking at changes only, will not tell of again.
				continue
			}
			return true
		}
	})
	if err := errors.Join(err, acceptErr); err != nil {
		return nil, err
	}
	remote := vsockAddr{}
	if vm, ok := from.(*unix.SockaddrVM); ok {
		remote = vsockAddr{vm.CID, vm.Port}
	}
	return &vsockConn{file: os.NewFile(uintptr(fd), "vsock"), local: l.addr, remote: remote}, nil
}

// Close makes a waiting Accept return net.ErrClosed.
func (l *vsockListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.file.Close()
}

func (l *vsockListener) Addr() net.Addr { return l.addr }

// vsockWrite is the most that one write sends. What does not fit into 32 KiB, with its head, newer kernels hand to the VMM
// in several pieces (Linux 6.17, Debian's 6.12.117 too), and Firecracker takes the first to be all of it: the stream goes
// on with bytes that nobody wrote (firecracker issue 5475).
const vsockWrite = 28 << 10

// vsockConn is a net.Conn of a file. It is none itself: what a file can write besides, by sendfile and the like, would not
// be bounded.
type vsockConn struct {
	file          *os.File
	local, remote vsockAddr
}

func (c *vsockConn) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	return n, c.netError("read", err)
}

func (c *vsockConn) Write(p []byte) (n int, err error) {
	for {
		m, err := c.file.Write(p[n:min(n+vsockWrite, len(p))])
		n += m
		if err != nil || n == len(p) {
			return n, c.netError("write", err)
		}
	}
}

// netError makes a file's error one of a connection's. net/http ends a read that waits for nothing by a deadline, and
// takes an error that is no net.Error for the client's end: every later request on the connection was canceled.
func (c *vsockConn) netError(op string, err error) error {
	var of *os.PathError
	if !errors.As(err, &of) {
		return err // io.EOF, nil
	}
	why := of.Err
	if errors.Is(why, os.ErrClosed) {
		why = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: why}
}

func (c *vsockConn) Close() error                       { return c.file.Close() }
func (c *vsockConn) SetDeadline(t time.Time) error      { return c.file.SetDeadline(t) }
func (c *vsockConn) SetReadDeadline(t time.Time) error  { return c.file.SetReadDeadline(t) }
func (c *vsockConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
func (c *vsockConn) LocalAddr() net.Addr                { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr               { return c.remote }
