package guest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// ErrEnded is what the tied body of a request reads when the connection that it went over has ended.
var ErrEnded = errors.New("the connection ended")

// Tie ties a request's body to the connection that the request goes over, one of a Tieable: when that ends, giveUp is
// called, which has to end a read of the body. A client of net/http whose connection has gone waits for that read, which may
// be one of a terminal or a pipe to which nobody writes. giveUp is not called after the body was closed, nor after untie: who
// passes a body on that others close, unties it when the request is over, since its connection may be kept for the next one.
func Tie(r *http.Request, giveUp func()) (tied *http.Request, untie func()) {
	b := &tiedBody{ReadCloser: r.Body, giveUp: giveUp}
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if c, ok := info.Conn.(*tieable); ok {
			c.tie(b)
		}
	}}))
	r.Body = b
	return r, b.untie
}

// Tieable makes a connection to which Tie can tie bodies.
func Tieable(conn net.Conn) net.Conn { return &tieable{Conn: conn} }

type tieable struct {
	net.Conn
	mu     sync.Mutex
	body   *tiedBody // the newest that was tied to it
	closed bool
}

func (c *tieable) tie(b *tiedBody) {
	c.mu.Lock()
	closed := c.closed
	c.body = b
	c.mu.Unlock()
	if closed {
		b.ended()
	}
}

func (c *tieable) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	c.closed = true
	b := c.body
	c.mu.Unlock()
	if b != nil {
		b.ended()
	}
	return err
}

// CloseWrite is that of the connection. That it has none must be known to who passes a stream on.
func (c *tieable) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

type tiedBody struct {
	io.ReadCloser
	giveUp func()

	mu           sync.Mutex
	closed, gone bool
}

func (b *tiedBody) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.gone {
		return
	}
	b.gone = true
	b.giveUp()
}

func (b *tiedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.gone {
			err = ErrEnded // and not that somebody closed it
		}
	}
	return n, err
}

func (b *tiedBody) Close() error {
	b.untie()
	return b.ReadCloser.Close()
}

func (b *tiedBody) untie() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}
