package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// Mux makes one virtio-serial port many connections to the guest agent: the host's end of a session. Safe for
// several goroutines.
type Mux struct {
	session *yamux.Session
	conn    *hostConn
	spare   chan *yamux.Stream // one that was opened beforehand
	opening sync.Mutex         // is held by who opens it
}

const (
	helloAgain    = 200 * time.Millisecond // first wait for an answer; doubled up to helloAgainMax
	helloAgainMax = 5 * time.Second        // above the round trip of the slowest guest
)

// NewMux begins a session on conn, the host's end of a port. It waits until the guest answers (it may not have
// booted yet) or ctx ends. The Mux owns conn, and so does NewMux when it returns an error.
func NewMux(ctx context.Context, conn net.Conn) (*Mux, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	rest, err := greet(ctx, conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("begin a session with the guest agent: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	host := &hostConn{Conn: conn, rest: rest, guard: hostGuard(), out: joiner{w: conn}}
	s, err := yamux.Client(host, sessionConfig(abandonAfter, hostWindow))
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Mux{session: s, conn: host, spare: make(chan *yamux.Stream, 1)}, nil
}

// greet does the host's part of the handshake, and returns what was read beyond it. Writing and reading take turns: a
// guest that is not up reads nothing, and one that is in an earlier session may read only when it is read from.
func greet(ctx context.Context, conn net.Conn) (rest []byte, err error) {
	in := scanner{r: conn}
	var latest nonce
	var unsent []byte
	wait := helloAgain
	for first := true; ; first = false {
		if len(unsent) == 0 {
			latest = newNonce()
			unsent = hello(latest, !first)
		}
		if err := setDeadline(ctx, conn, helloAgain); err != nil {
			return nil, err
		}
		n, err := conn.Write(unsent) // what was sent of a hello stays sent
		unsent = unsent[n:]
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			if err = setDeadline(ctx, conn, wait); err == nil {
				err = awaitAnswer(&in, latest, len(unsent) > 0)
			}
		}
		switch {
		case err == nil && len(unsent) == 0:
			if err := setDeadline(ctx, conn, helloAgainMax); err != nil {
				return nil, err
			}
			_, err := conn.Write(message{kindGo, latest}.append(nil))
			return in.rest(), err
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case len(unsent) == 0:
			wait = min(2*wait, helloAgainMax)
		}
	}
}

// awaitAnswer returns when latest was answered, or with anyAnswer when any hello was.
func awaitAnswer(in *scanner, latest nonce, anyAnswer bool) error {
	for {
		m, err := in.next()
		if err != nil {
			return err
		}
		if m.kind == kindAnswer && (anyAnswer || m.nonce == latest) {
			return nil
		}
	}
}

// setDeadline sets conn's deadline, unless ctx has ended. A context that ends later sets the deadline after us.
func setDeadline(ctx context.Context, conn net.Conn, in time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(in)); err != nil {
		return err
	}
	return ctx.Err()
}

// hello makes the bytes that ask for a session. The first try is a bare message. When that was not answered the guest
// may be inside a frame of an earlier session: the next tries begin with more bytes than it can be waiting for, none
// of them a yamux header, and more than its reader has buffered when it finds out.
func hello(n nonce, flush bool) []byte {
	var b []byte
	if flush {
		b = bytes.Repeat([]byte{0xff}, maxChunk+2*yamuxHeader+4096)
	}
	return message{kindHello, n}.append(b)
}

// hostConn is what yamux sees of the port.
type hostConn struct {
	net.Conn
	rest []byte // read during the handshake
	out  joiner

	guard   guard
	refused atomic.Pointer[error] // what the guard found, which has ended the session
}

// Read gives yamux what the guard lets pass; then, again and again, what it did not.
func (c *hostConn) Read(p []byte) (n int, err error) {
	if err := c.refused.Load(); err != nil {
		return 0, *err
	}
	if len(c.rest) > 0 {
		n = copy(p, c.rest)
		c.rest = c.rest[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	if good, bad := c.guard.check(p[:n]); bad != nil {
		bad = fmt.Errorf("the guest broke the protocol: %w", bad)
		c.refused.Store(&bad)
		return good, bad
	}
	return n, err
}

func (c *hostConn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Dial opens a connection to the agent. It does not wait for the guest, unless the port is full.
func (m *Mux) Dial(ctx context.Context) (net.Conn, error) {
	type opened struct {
		stream *yamux.Stream
		err    error
	}
	select {
	case s := <-m.spare:
		if !m.session.IsClosed() {
			return muxConn{s, m}, nil
		}
	default:
	}
	done := make(chan opened, 1)
	go func() {
		s, err := m.session.OpenStream()
		done <- opened{s, err}
	}()
	select {
	case o := <-done:
		if why := m.conn.refused.Load(); o.err != nil && why != nil {
			o.err = *why
		}
		if o.err != nil {
			return nil, fmt.Errorf("open a stream to the guest agent: %w", o.err)
		}
		return muxConn{o.stream, m}, nil
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil {
				_ = o.stream.Close()
			}
		}()
		return nil, fmt.Errorf("open a stream to the guest agent: %w", ctx.Err())
	}
}

// ready opens a stream for the next who needs one, where there is none yet: the guest, slow as it is, has then accepted it when
// its request comes.
func (m *Mux) ready() {
	if !m.opening.TryLock() {
		return
	}
	defer m.opening.Unlock()
	if len(m.spare) > 0 {
		return
	}
	s, err := m.session.OpenStream()
	if err != nil {
		return // the session is over
	}
	m.spare <- s // there is room: nobody else puts one there
}

// Close ends the session, all its connections, and the port's connection.
func (m *Mux) Close() error { return m.session.Close() }

// Done is closed when the session has ended, for whatever reason: the guest or its VMM is gone, the guest sent what no
// agent does, or Close.
func (m *Mux) Done() <-chan struct{} { return m.session.CloseChan() }

// muxConn is one connection of a Mux.
type muxConn struct {
	*yamux.Stream
	mux *Mux
}

// Write sends p in chunks that a new host can flush out of the guest.
func (c muxConn) Write(p []byte) (n int, err error) {
	for chunk := range slices.Chunk(p, maxChunk) {
		w, err := c.Stream.Write(chunk)
		n += w
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Close ends both directions. It does not wait for a guest that reads nothing, be it paused or dead.
func (c muxConn) Close() error {
	_ = c.SetReadDeadline(time.Unix(1, 0))
	go func() {
		_ = c.Stream.Close()
		c.mux.ready()
	}()
	return nil
}
