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
	conn, err := connect(ctx, socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	g := &greeting{Conn: conn}
	if _, err = g.Write(nil); err == nil {
		err = g.hear()
	}
	if err == nil && g.in.Buffered() > 0 {
		err = fmt.Errorf("%w: it speaks another protocol", ErrNoDaemon)
	}
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return conn, nil
}

func connect(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("connect to %s: %w", socket, ErrNoDaemon)
	case errors.Is(err, fs.ErrPermission):
		return nil, vm.Errorf(vm.CodeUnavailable, "connect to the daemon at %s: %w", socket, syscall.EACCES).
			WithHint("the daemon belongs to another user; BANGER_ROOT=DIR gives you your own")
	}
	return conn, err
}

// answerWithin is how long a daemon may take to say who it is.
const answerWithin = 30 * time.Second

// hello asks for the version.
const hello = "GET " + api.PathVersion + " HTTP/1.1\r\nHost: banger\r\n\r\n"

// greeting is a connection whose first Write sends a hello before it, and whose first Read hears the answer to that: what Dial
// makes sure of, without a round trip of its own. Where nobody takes it or answers, Write or Read gives ErrNoDaemon, and what was
// written did nothing: a server takes one request after the other, and has answered the first before it looks at the next.
type greeting struct {
	net.Conn
	said, heard bool
	in          *bufio.Reader // holds what came with the answer
}

func (g *greeting) Write(p []byte) (int, error) {
	if g.said {
		return g.Conn.Write(p)
	}
	g.said = true
	n, err := g.Conn.Write(append([]byte(hello), p...))
	if err != nil {
		err = fmt.Errorf("%w (%w)", ErrNoDaemon, err)
	}
	return max(0, n-len(hello)), err
}

func (g *greeting) Read(p []byte) (int, error) {
	if !g.heard {
		if err := g.hear(); err != nil {
			return 0, err
		}
	}
	if g.in.Buffered() > 0 {
		return g.in.Read(p)
	}
	return g.Conn.Read(p)
}

func (g *greeting) hear() error {
	g.heard, g.in = true, bufio.NewReader(g.Conn)
	defer time.AfterFunc(answerWithin, func() { _ = g.Close() }).Stop()
	resp, err := http.ReadResponse(g.in, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.Close {
			err = errors.New("it is about to end, or speaks another protocol")
		}
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrNoDaemon, err)
	}
	return nil
}

// CloseWrite tells the daemon that no more comes.
func (g *greeting) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
