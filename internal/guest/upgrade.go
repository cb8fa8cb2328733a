package guest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Upgrade sends req on conn and asks for it to become a stream of the protocol token. With 101 answered, stream is
// conn with what the answer's reader holds beyond the answer; closing it closes conn. Any other answer is returned
// with a nil stream, its body still to be read and conn still to be closed by the caller. On an error conn is closed.
// The context of req bounds the call, not the stream.
func Upgrade(conn net.Conn, req *http.Request, token string) (stream net.Conn, answer *http.Response, err error) {
	ctx := req.Context()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = conn.Close()
			stream, answer, err = nil, nil, fmt.Errorf("open a %s stream: %w", token, err)
		}
	}()
	if req.Header.Get("Upgrade") != token { // a proxy's request has them already, and may still be looked at
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", token)
	}
	out := bufio.NewWriter(conn) // head and body in one write
	if err := req.Write(out); err != nil {
		return nil, nil, err
	}
	if err := out.Flush(); err != nil {
		return nil, nil, err
	}
	in, answer, err := readAnswer(conn, req)
	if err != nil {
		return nil, nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, answer, nil
	}
	if err := switched(answer, token); err != nil {
		return nil, nil, err
	}
	return &upgraded{Conn: conn, in: in}, answer, nil
}

// switched says what is wrong with an answer that switches to a protocol, where that is not token; "" = none was asked for.
func switched(answer *http.Response, token string) error {
	if to := answer.Header.Get("Upgrade"); token == "" || !strings.EqualFold(to, token) {
		return fmt.Errorf("the answer switches to the protocol %q, where %q was asked for", Plain(to), token)
	}
	return nil
}

// upgraded is a connection whose first bytes may lie in the reader that took the answer.
type upgraded struct {
	net.Conn
	in *bufio.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.in.Read(p) }

// WriteTo saves io.Copy a buffer.
func (u *upgraded) WriteTo(w io.Writer) (int64, error) { return u.in.WriteTo(w) }

// CloseWrite tells the other end that no more comes, where the connection can say that.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
