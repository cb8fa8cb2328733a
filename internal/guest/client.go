package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"banger/internal/vm"
)

// Dialer opens a connection to a guest agent.
type Dialer func(ctx context.Context) (net.Conn, error)

// Client speaks to one guest agent. Its errors are *vm.Error: those of the agent, CodeUnavailable where it did not
// answer, CodeCanceled where the context ended before it could.
type Client struct {
	dial      Dialer
	spare     chan net.Conn // holds the connection of an answered hello, for the next request
	transport *http.Transport
}

// NewClient makes a Client that reaches the agent by d.
func NewClient(d Dialer) *Client {
	c := &Client{dial: d, spare: make(chan net.Conn, 1)}
	c.transport = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression:  true, // the channel is quicker than the guest's processor
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     time.Minute,

		MaxResponseHeaderBytes: maxHead,
	}
	return c
}

// connect makes a connection, or takes the one that is there. What comes right after a hello saves a handshake with a
// guest that has just come up, and is slow at it.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	select {
	case conn := <-c.spare:
		return Tieable(conn), nil
	default:
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return Tieable(conn), nil
}

// spareLife is how long a connection is kept for the next request; what it is kept for comes at once.
const spareLife = time.Second

// keep keeps a connection on which nothing is under way.
func (c *Client) keep(conn net.Conn) {
	select {
	case c.spare <- conn:
	default:
		_ = conn.Close()
		return
	}
	time.AfterFunc(spareLife, func() {
		select {
		case conn := <-c.spare:
			_ = conn.Close()
		default:
		}
	})
}

// Hello asks the agent who it is.
func (c *Client) Hello(ctx context.Context) (h Hello, err error) {
	err = c.call(ctx, http.MethodGet, PathHello, nil, &h)
	h.plain()
	return h, err
}

// Configure gives the guest its identity.
func (c *Client) Configure(ctx context.Context, conf Configure) (h Hello, err error) {
	err = c.call(ctx, http.MethodPost, PathConfigure, conf, &h)
	h.plain()
	return h, err
}

// Sync writes the guest's dirty pages to its disks.
func (c *Client) Sync(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, PathSync, nil, nil)
}

// Stats returns the guest's view of its load.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	err = c.call(ctx, http.MethodGet, PathStats, nil, &s)
	return s, err
}

// Processes lists the guest's processes.
func (c *Client) Processes(ctx context.Context) (p Processes, err error) {
	err = c.call(ctx, http.MethodGet, PathProcesses, nil, &p)
	for i := range p.Processes {
		p.Processes[i].plain()
	}
	return p, err
}

// Listeners lists the ports on which somebody in the guest waits.
func (c *Client) Listeners(ctx context.Context) (l Listeners, err error) {
	err = c.call(ctx, http.MethodGet, PathListeners, nil, &l)
	for i := range l.Listeners {
		l.Listeners[i].plain()
	}
	return l, err
}

// Jobs lists the guest's jobs.
func (c *Client) Jobs(ctx context.Context) (j Jobs, err error) {
	err = c.call(ctx, http.MethodGet, PathJobs, nil, &j)
	for i := range j.Jobs {
		j.Jobs[i].plain()
	}
	return j, err
}

// SignalJob sends a job a signal.
func (c *Client) SignalJob(ctx context.Context, r SignalRequest) error {
	return c.call(ctx, http.MethodPost, PathSignal, r, nil)
}

// PowerOff begins an orderly end. It returns when the agent has taken it on.
func (c *Client) PowerOff(ctx context.Context, p PowerOff) error {
	return c.call(ctx, http.MethodPost, PathPowerOff, p, nil)
}

// Exec starts a process and returns its stream of frames (see RunExec). ctx bounds the start, not the process.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (net.Conn, error) {
	return c.upgrade(ctx, PathExec, UpgradeExec, r)
}

// Forward opens a connection to a port of the guest, as a stream of frames (see Forward, ReadDatagram). ctx bounds the
// opening only.
func (c *Client) Forward(ctx context.Context, r ForwardRequest) (net.Conn, error) {
	return c.upgrade(ctx, PathForward, UpgradeForward, r)
}

// SSH opens the bytes of one SSH connection. ctx bounds the opening only.
func (c *Client) SSH(ctx context.Context) (net.Conn, error) {
	return c.upgrade(ctx, PathSSH, UpgradeRaw, nil)
}

// request makes a request with v as JSON body; nil makes none.
func request(ctx context.Context, method, path string, v any) (*http.Request, error) {
	var body io.Reader
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, vm.Errorf(vm.CodeInternal, "encode a request to the guest agent (%s): %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://guest"+path, body)
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "make a request to the guest agent (%s): %w", path, err)
	}
	if v != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// call makes one request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	req, err := request(ctx, method, path, in)
	if err != nil {
		return err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return unanswered(ctx, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	return decode(path, resp, out)
}

func (c *Client) upgrade(ctx context.Context, path, token string, in any) (net.Conn, error) {
	req, err := request(ctx, http.MethodPost, path, in)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, unanswered(ctx, path, err)
	}
	stream, resp, err := Upgrade(conn, req, token)
	if err != nil {
		return nil, unanswered(ctx, path, err)
	}
	if stream == nil {
		defer func() { _ = conn.Close(); _ = resp.Body.Close() }()
		if err := decode(path, resp, nil); err != nil {
			return nil, err
		}
		return nil, vm.Errorf(vm.CodeInternal, "guest agent (%s): answered %s instead of a stream", path, Plain(resp.Status))
	}
	return stream, nil
}

func unanswered(ctx context.Context, path string, err error) error {
	code := vm.CodeUnavailable
	if ctx.Err() != nil {
		code = vm.CodeCanceled
	}
	return vm.Errorf(code, "reach the guest agent (%s): %w", path, plainError{err})
}

// Bounds of what a guest may answer: it is not trusted, and the memory is the daemon's.
const (
	maxHead   = 64 << 10 // status line and header
	maxAnswer = 1 << 20  // the body of an answer that is no stream
)

// readAnswer reads the head of the answer to req. The body and what else comes are read by way of in, without a bound.
func readAnswer(conn io.Reader, req *http.Request) (in *bufio.Reader, resp *http.Response, err error) {
	limit := &io.LimitedReader{R: conn, N: maxHead}
	in = bufio.NewReader(limit)
	resp, err = http.ReadResponse(in, req)
	if err != nil && limit.N <= 0 {
		err = fmt.Errorf("the head of the answer has more than %d bytes", maxHead)
	}
	limit.N = math.MaxInt64
	return in, resp, err
}

// decode reads resp's body into out, or returns the error it is.
func decode(path string, resp *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return vm.Errorf(vm.CodeUnavailable, "read the guest agent's answer (%s): %w", path, plainError{err})
	}
	if resp.StatusCode/100 != 2 {
		var e ErrorBody
		if json.Unmarshal(body, &e) != nil || e.Code == "" {
			err := vm.Errorf(vm.CodeInternal, "guest agent (%s): answered %s", path, Plain(resp.Status))
			err.Err = errAnswered
			if resp.StatusCode == http.StatusNotFound { // it knows no such path: files and the like that are not there have a code
				return err.WithHint("the VM runs the agent of an older banger: restart the VM")
			}
			return err
		}
		return &vm.Error{Code: vm.Code(Plain(e.Code)), Message: Plain(e.Message), Hint: Plain(e.Hint), Err: errAnswered}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		e := vm.Errorf(vm.CodeInternal, "decode the guest agent's answer (%s): %v", path, plainError{err})
		e.Err = errAnswered
		return e
	}
	return nil
}

var errAnswered = errors.New("the guest agent answered")

// Answered says that an error is what an agent answered, or what it made of its answer: it lives.
func Answered(err error) bool { return errors.Is(err, errAnswered) }
