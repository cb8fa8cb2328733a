package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"
)

// ServePort serves sessions on port, the guest's end of a virtio-serial port, one after the other until ctx ends. It
// calls serve with a new listener for each session; the listener ends with the session, and serve is expected to
// return then. When serve returns earlier, the session is ended. The port must have been opened with O_NONBLOCK, its
// Fd method not used since, and stays the caller's. The error is that of ctx, or says why the port cannot be used.
func ServePort(ctx context.Context, port *os.File, serve func(net.Listener) error) error {
	raw, err := port.SyscallConn()
	if err != nil {
		return fmt.Errorf("serve on port %s: %w", port.Name(), err)
	}
	if err := port.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("serve on port %s (opened without O_NONBLOCK?): %w", port.Name(), err)
	}
	if err := serveDevice(ctx, portDevice{port, raw}, serve); err != nil {
		return fmt.Errorf("serve on port %s: %w", port.Name(), err)
	}
	return nil
}

// device is what serveDevice needs of a port.
type device interface {
	io.ReadWriter // Read gives io.EOF while no host is connected
	SetDeadline(time.Time) error

	// ReadHost is Read, but waits while no host is connected.
	ReadHost(p []byte) (int, error)
	// Offer writes p if that is possible without waiting.
	Offer(p []byte)
}

func serveDevice(ctx context.Context, dev device, serve func(net.Listener) error) error {
	defer context.AfterFunc(ctx, func() { _ = dev.SetDeadline(time.Unix(1, 0)) })()
	in := scanner{r: hostReader{dev}}
	for {
		if err := meet(dev, &in); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		conn := &guestConn{dev: dev, guard: guestGuard(), out: joiner{w: dev}}
		conn.rest = in.rest()
		session, err := yamux.Server(conn, sessionConfig(0, guestWindow))
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = session.Close() })
		_ = serve(session)
		stop()
		_ = session.Close() // returns when yamux has let go of the port

		if err := dev.SetDeadline(time.Time{}); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !conn.eof {
			dev.Offer(message{kind: kindEnd}.append(nil))
		}
		in = scanner{r: hostReader{dev}}
		in.end = copy(in.buf[:], conn.tail) // a new host's hello may be what ended the session
	}
}

// meet does the guest's part of the handshake.
func meet(dev device, in *scanner) error {
	var answered nonce
	for {
		m, err := in.next()
		if err != nil {
			return err
		}
		switch m.kind {
		case kindHello:
			answered = m.nonce
			if _, err := dev.Write(message{kindAnswer, answered}.append(nil)); err != nil {
				return err
			}
		case kindGo:
			if m.nonce == answered {
				return nil
			}
		}
	}
}

type hostReader struct{ dev device }

func (r hostReader) Read(p []byte) (int, error) { return r.dev.ReadHost(p) }

// guestConn is what yamux sees of the port during one session.
type guestConn struct {
	dev  device
	rest []byte // read during the handshake
	tail []byte // the last bytes read, at least a message's length if there were so many
	eof  bool   // the host's end was closed

	guard guard
	out   joiner
}

func (c *guestConn) Read(p []byte) (n int, err error) {
	if len(c.rest) > 0 {
		n = copy(p, c.rest)
		c.rest = c.rest[n:]
	} else if n, err = c.dev.Read(p); errors.Is(err, io.EOF) {
		c.eof = true
	}
	before := c.tail[max(0, len(c.tail)-messageLen):]
	c.tail = append(append(c.tail[:0], before...), p[max(0, n-messageLen):n]...)
	if _, e := c.guard.check(p[:n]); e != nil {
		return 0, e
	}
	return n, err
}

func (c *guestConn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Close makes a waiting Read and Write return. The port stays open.
func (c *guestConn) Close() error { return c.dev.SetDeadline(time.Unix(1, 0)) }

// portDevice is the real port. It relies on the runtime's poller being edge-triggered: while no host is connected the
// port counts as readable all the time (end of file, EPOLLHUP), but only a change of the port wakes its reader.
type portDevice struct {
	*os.File
	raw syscall.RawConn
}

func (d portDevice) ReadHost(p []byte) (n int, err error) {
	waitErr := d.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), p)
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN, err == nil && n == 0:
				return false
			default:
				return true
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if err != nil {
		return 0, os.NewSyscallError("read", err)
	}
	return n, nil
}

func (d portDevice) Offer(p []byte) {
	_ = d.raw.Write(func(fd uintptr) bool {
		_, _ = unix.Write(int(fd), p)
		return true
	})
}
