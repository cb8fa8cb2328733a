// Package client is the CLI's end of the daemon's API: one method per path of package api, over a unix socket.
//
// It formats nothing for people and knows nothing about processes: what to do when no daemon listens is given to it
// (WithStart). Every error is a *vm.Error, or wraps the context's.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// ErrNoDaemon says that nobody listens on the socket.
var ErrNoDaemon = errors.New("no daemon is running")

// maxBody bounds an answer that is read whole: a list of 10,000 VMs has about 12 MB.
const maxBody = 64 << 20

// Client speaks to one daemon. It is safe for several goroutines.
type Client struct {
	socket    string
	http      *http.Client
	start     func(context.Context) error
	onVersion func(string)
	told      sync.Once // onVersion
	trace     func(Exchange)
}

// Option configures New.
type Option func(*Client)

// WithStart gives what is called when no daemon listens, at every connection; after nil the connection is tried again.
func WithStart(start func(context.Context) error) Option { return func(c *Client) { c.start = start } }

// WithVersion gives what is called once, with the daemon's version, when the first answer comes.
func WithVersion(f func(string)) Option { return func(c *Client) { c.onVersion = f } }

// New makes a client of the daemon behind socket. It does not connect.
func New(socket string, opts ...Option) *Client {
	c := &Client{socket: socket}
	for _, o := range opts {
		o(c)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.dial(ctx)
			if err != nil {
				return nil, err
			}
			return guest.Tieable(conn), nil
		},
		DisableCompression: true,
	}}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) saw(h http.Header) {
	if v := h.Get(api.VersionHeader); v != "" && c.onVersion != nil {
		c.told.Do(func() { c.onVersion(v) })
	}
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	err := c.starting(ctx, func() (err error) {
		conn, err = Dial(ctx, c.socket)
		return err
	})
	return conn, err
}

// starting tries what gives ErrNoDaemon where it did nothing, and tries it again once a daemon was started.
func (c *Client) starting(ctx context.Context, try func() error) error {
	err := try()
	if !errors.Is(err, ErrNoDaemon) || c.start == nil || ctx.Err() != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	return try()
}

// path fills {ref} in one of the api.Path constants. ref is escaped: it may come from a command line.
func path(pattern, ref string) string { return strings.Replace(pattern, "{ref}", escape(ref), 1) }

// escape leaves the characters of names and ids and percent-encodes the rest, "/" and ".." included.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// send makes one request and turns every answer that is not 2xx into an error. what is for people: "listing VMs".
func (c *Client) send(ctx context.Context, what, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://banger"+path, body)
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "%s: %w", what, err)
	}
	if header != nil {
		req.Header = header
	}
	if stream, ok := body.(io.ReadCloser); ok { // a read of it may wait for ever
		tied, untie := guest.Tie(req, func() { _ = stream.Close() })
		defer untie()
		req = tied
	}
	answered := c.asked(req)
	resp, err := c.http.Do(req)
	if err != nil {
		answered(0)
		return nil, c.gone(ctx, what, err)
	}
	resp.Body = &traced{ReadCloser: resp.Body, closed: func() { answered(resp.StatusCode) }}
	c.saw(resp.Header)
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, answerError(what, resp)
	}
	return resp, nil
}

// json makes one request with an optional JSON body and decodes the JSON answer into out, unless that is nil.
func (c *Client) json(ctx context.Context, what, method, path string, in, out any) error {
	resp, err := c.sendJSON(ctx, what, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return c.gone(ctx, what, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return vm.Errorf(vm.CodeInternal, "%s: the daemon's answer is not understood: %w", what, err)
	}
	return nil
}

func (c *Client) sendJSON(ctx context.Context, what, method, path string, in any) (*http.Response, error) {
	if in == nil {
		return c.send(ctx, what, method, path, nil, nil)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "%s: %w", what, err)
	}
	return c.send(ctx, what, method, path, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(b))
}

// answerError reads an api.ErrorBody; an answer without one still gives an error that says what happened.
func answerError(what string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var body api.ErrorBody
	if json.Unmarshal(b, &body) == nil && body.Message != "" {
		return body.Err()
	}
	code := vm.CodeInternal
	if resp.StatusCode == http.StatusNotFound {
		code = vm.CodeNotFound
	}
	return vm.Errorf(code, "%s: the daemon answered %s", what, resp.Status)
}

// gone tells a cancelled request from a daemon that died under it; an error that already explains itself stays.
func (c *Client) gone(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var known *vm.Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, ErrNoDaemon) {
		return ErrNoDaemon
	}
	var request *url.Error // names the method and a URL that means nothing to people
	if errors.As(err, &request) {
		err = request.Err
	}
	return vm.Errorf(vm.CodeUnavailable, "the daemon went away while %s; VMs keep running: %w", what, err).
		WithHint("run the command again: it starts the daemon, which finds its VMs; 'banger doctor' helps if that fails")
}
