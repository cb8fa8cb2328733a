package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
)

// Transport carries requests to the agent, whatever their host; for a reverse proxy. Upgrades pass: the body of their answer
// is the stream.
func (c *Client) Transport() http.RoundTripper { return carrier{c} }

// maxJoined is what a request's body may have to go out together with its head: net/http sends a body apart unless it sees that
// it is in memory.
const maxJoined = 64 << 10

// carrier gives upgrades a connection of their own at once: net/http's transport would hand each from one goroutine to the
// next, and send head and body apart, which costs an emulated guest more than the rest of the request.
type carrier struct{ *Client }

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	token := r.Header.Get("Upgrade")
	if token == "" || r.ContentLength < 0 {
		return c.apart(r, token)
	}
	if n := r.ContentLength; n > 0 && n <= maxJoined {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, fmt.Errorf("read the request for the guest agent: %w", err)
		}
		_ = r.Body.Close()
		r = r.WithContext(r.Context()) // a copy
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	conn, err := c.connect(r.Context())
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the socket; of earlier requests a connection may be left
		return c.apart(r, token)
	}
	if err != nil {
		return nil, err
	}
	stream, answer, err := Upgrade(conn, r, token)
	switch {
	case err != nil:
		return nil, err
	case stream != nil:
		answer.Body = stream
	default:
		answer.Body = refusal{answer.Body, conn}
	}
	return answer, nil
}

// apart carries a request by net/http's transport. Of a switch that nobody asked for a proxy would close nothing.
func (c carrier) apart(r *http.Request, token string) (*http.Response, error) {
	answer, err := c.transport.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		return answer, err
	}
	if err := switched(answer, token); err != nil {
		_ = answer.Body.Close()
		return nil, err
	}
	return answer, nil
}

// refusal is the body of an answer on a connection of which nothing else will come.
type refusal struct {
	io.ReadCloser
	conn net.Conn
}

func (r refusal) Close() error { return errors.Join(r.ReadCloser.Close(), r.conn.Close()) }
