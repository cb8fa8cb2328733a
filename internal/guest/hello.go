package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"banger/internal/vm"
)

const (
	helloPause    = 5 * time.Millisecond // after a refused connection; a sixteenth of the time waited so far, up to helloPauseMax
	helloPauseMax = 100 * time.Millisecond
	helloWait     = time.Second // for the answer on a connection; doubled up to helloWaitMax
	helloWaitMax  = 16 * time.Second
)

// WaitHello connects until a hello is answered or ctx ends. Connections that are accepted and then dropped, as the
// first one after a snapshot was loaded, count for nothing.
func (c *Client) WaitHello(ctx context.Context) (Hello, error) {
	begin, wait := time.Now(), helloWait
	for {
		h, err := c.tryHello(ctx, wait)
		if err == nil {
			return h, nil
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			wait = min(2*wait, helloWaitMax)
		}
		pause := min(max(helloPause, time.Since(begin)/16), helloPauseMax)
		timer := time.NewTimer(pause) // there is nothing to be told by: the guest's side of the channel cannot be watched
		select {
		case <-ctx.Done():
			timer.Stop()
			return Hello{}, vm.Errorf(vm.CodeUnavailable, "wait for the guest agent: %w; last: %s", context.Cause(ctx), Plain(err.Error()))
		case <-timer.C:
		}
	}
}

// tryHello asks on a connection of its own, which is kept when it is answered. Dialing may take as long as ctx lasts (over
// a port it includes the guest's boot), the answer only so long.
func (c *Client) tryHello(ctx context.Context, wait time.Duration) (h Hello, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return h, err
	}
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		_ = conn.Close()
		return h, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	again, err := askHello(ctx, conn, &h)
	if stop() && again && conn.SetDeadline(time.Time{}) == nil {
		c.keep(conn)
	} else {
		_ = conn.Close()
	}
	return h, err
}

// askHello asks on conn. again says that something can be asked on it once more.
func askHello(ctx context.Context, conn net.Conn, h *Hello) (again bool, err error) {
	req, err := request(ctx, http.MethodGet, PathHello, nil)
	if err != nil {
		return false, err
	}
	if err := req.Write(conn); err != nil {
		return false, fmt.Errorf("ask for a hello: %w", err)
	}
	in, resp, err := readAnswer(conn, req)
	if err != nil {
		return false, fmt.Errorf("read the hello: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	err = decode(PathHello, resp, h)
	h.plain()
	return err == nil && !resp.Close && in.Buffered() == 0, err
}
