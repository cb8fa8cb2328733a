package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

// Dial connects to the daemon behind socket, and returns a connection on which it has answered. A connection alone
// proves nothing: the kernel makes one with a daemon that was killed a moment ago. ErrNoDaemon when nobody answers.
func Dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("connect to %s: %w", socket, ErrNoDaemon)
	case errors.Is(err, fs.ErrPermission):
		return nil, vm.Errorf(vm.CodeUnavailable, "connect to the daemon at %s: %w", socket, syscall.EACCES).
			WithHint("the daemon belongs to another user; BANGER_ROOT=DIR gives you your own")
	case err != nil:
		return nil, err
	}
	if err := hello(ctx, conn); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s: %w (%w)", socket, ErrNoDaemon, err)
	}
	return conn, nil
}

// answerWithin is how long a daemon may take to say who it is.
const answerWithin = 30 * time.Second

// hello asks for the version, and leaves conn ready for the next request.
func hello(ctx context.Context, conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(answerWithin))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() {
			_ = conn.SetDeadline(time.Time{})
		}
	}()
	if _, err := io.WriteString(conn, "GET "+api.PathVersion+" HTTP/1.1\r\nHost: banger\r\n\r\n"); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if in.Buffered() > 0 || resp.Close {
		return errors.New("it speaks another protocol")
	}
	return nil
}
