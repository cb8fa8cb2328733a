package agent

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// datagrams carries one client's datagrams to a port of this machine, and back. Nobody can tell whether a server of UDP is
// there before it is sent something: where that is refused, the server is looked for again.
type datagrams struct {
	req  guest.ForwardRequest
	proc string

	mu     sync.Mutex
	conn   *net.UDPConn
	looked time.Time // when it was looked for last
	over   bool
}

// lookAgain is how long a server that is not there is not looked for again.
const lookAgain = 100 * time.Millisecond

// forward returns when the host has ended it: it knows how long a client was silent.
func (d *datagrams) forward(ctx context.Context, stream net.Conn) {
	defer d.end()
	go func() {
		d.answer(ctx, stream)
		_ = stream.Close()
	}()
	buf := make([]byte, guest.MaxFrame)
	for {
		n, err := guest.ReadDatagram(stream, buf)
		if err != nil {
			return
		}
		conn, _ := d.current()
		_, err = conn.Write(buf[:n]) // a datagram may be lost
		if errors.Is(err, unix.ECONNREFUSED) {
			_, _ = d.lookFor(ctx, conn).Write(buf[:n]) // this one was not even sent: the refusal is that of an earlier one
		}
	}
}

// answer passes on what the server says, until it is over.
func (d *datagrams) answer(ctx context.Context, stream net.Conn) {
	buf := make([]byte, guest.MaxFrame)
	for {
		conn, over := d.current()
		if over {
			return
		}
		n, err := conn.Read(buf)
		switch {
		case errors.Is(err, unix.ECONNREFUSED): // nobody is there yet, or any more: the client asks again
			d.lookFor(ctx, conn)
		case err != nil: // closed: another took its place, or it is over
			if now, _ := d.current(); now == conn {
				return
			}
		default:
			if guest.WriteDatagram(stream, buf[:n]) != nil {
				return
			}
		}
	}
}

func (d *datagrams) current() (conn *net.UDPConn, over bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn, d.over
}

// lookFor finds the server anew, which refused what came over a connection, and returns the connection to use from now on.
func (d *datagrams) lookFor(ctx context.Context, refused *net.UDPConn) *net.UDPConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || d.conn != refused || time.Since(d.looked) < lookAgain {
		return d.conn
	}
	d.looked = time.Now()
	found, err := dialSelf(ctx, d.proc, d.req)
	if err != nil {
		return d.conn
	}
	conn, ok := found.(*net.UDPConn)
	if !ok || conn.RemoteAddr().String() == refused.RemoteAddr().String() {
		_ = found.Close()
		return d.conn
	}
	d.conn = conn
	_ = refused.Close()
	return conn
}

func (d *datagrams) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	_ = d.conn.Close()
}
