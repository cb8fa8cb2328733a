package client

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// Exchange is a request to the daemon as WithTrace tells of it: once when it is made, and once when it has ended.
type Exchange struct {
	Method, Path string // Path with its query
	Done         bool
	Status       int           // of the answer; 0: none came
	Took         time.Duration // to the end of the answer, or to where the connection became a stream
}

// WithTrace gives what is told of each request. It may be called by several goroutines at once.
func WithTrace(f func(Exchange)) Option { return func(c *Client) { c.trace = f } }

// asked tells of a request that begins; what it returns tells of its end.
func (c *Client) asked(req *http.Request) (answered func(status int)) {
	if c.trace == nil {
		return func(int) {}
	}
	e, begun := Exchange{Method: req.Method, Path: req.URL.RequestURI()}, time.Now()
	c.trace(e)
	return func(status int) {
		e.Done, e.Status, e.Took = true, status, time.Since(begun)
		c.trace(e)
	}
}

// traced is an answer's body; the exchange ends when it is closed.
type traced struct {
	io.ReadCloser
	closed func()
	once   sync.Once
}

func (t *traced) Close() error {
	t.once.Do(t.closed)
	return t.ReadCloser.Close()
}
