package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// Exec opens an exec stream (guest frames) in a VM. Of a VM that is wanted running the answer comes when it is ready,
// however long that takes; of another it is an error at once. ctx bounds the opening, not the stream.
func (c *Client) Exec(ctx context.Context, ref string, r guest.ExecRequest) (net.Conn, error) {
	return c.upgrade(ctx, "running a command in VM "+ref, path(api.PathVMExec, ref), guest.UpgradeExec, r)
}

// Attach joins a job of a VM's guest, and returns its stream of frames. ctx bounds the opening, not the stream.
func (c *Client) Attach(ctx context.Context, ref string, r guest.AttachRequest) (net.Conn, error) {
	return c.upgrade(ctx, "attaching to job "+r.Job+" of VM "+ref, path(api.PathAttach, ref), guest.UpgradeExec, r)
}

// SSH opens the bytes of one SSH connection to a VM. ctx bounds the opening, not the stream.
func (c *Client) SSH(ctx context.Context, ref string) (net.Conn, error) {
	return c.upgrade(ctx, "connecting to VM "+ref+" by ssh", path(api.PathVMSSH, ref), guest.UpgradeRaw, nil)
}

// upgrade makes a POST on a connection of its own that becomes the stream.
func (c *Client) upgrade(ctx context.Context, what, path, token string, body any) (net.Conn, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return nil, vm.Errorf(vm.CodeInternal, "%s: %w", what, err)
		}
	}
	var stream, conn net.Conn
	var answer *http.Response
	err := c.starting(ctx, func() (err error) {
		stream, answer, conn, err = c.openStream(ctx, path, token, payload) //nolint:bodyclose // it is, below
		return err
	})
	if err != nil {
		return nil, c.gone(ctx, what, err)
	}
	defer answer.Body.Close()
	c.saw(answer.Header)
	if stream == nil {
		defer conn.Close()
		return nil, answerError(what, answer)
	}
	return stream, nil
}

// openStream tries it once, and returns the answer with its connection where that is no stream. After ErrNoDaemon nothing was done.
func (c *Client) openStream(ctx context.Context, path, token string, payload []byte) (stream net.Conn, answer *http.Response, conn net.Conn, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://banger"+path, bytes.NewReader(payload))
	if err != nil {
		return nil, nil, nil, vm.Errorf(vm.CodeInternal, "ask the daemon for %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	answered, status := c.asked(req), 0
	defer func() { answered(status) }()
	if conn, err = connect(ctx, c.socket); err != nil {
		return nil, nil, nil, err
	}
	if stream, answer, err = guest.Upgrade(&greeting{Conn: conn}, req, token); err == nil {
		status = answer.StatusCode
	}
	return stream, answer, conn, err
}
