package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"banger/internal/api"
	"banger/internal/vm"
)

// maxLine bounds one line of a stream.
const maxLine = 1 << 20

// Stream makes a long request: events go to onEvent (may be nil) as they come, the last message is returned, an error
// in it as the error. what is for people, as in "the daemon went away while creating a VM".
func (c *Client) Stream(ctx context.Context, what, method, path string, body any, onEvent func(vm.Event)) (api.Message, error) {
	resp, err := c.sendJSON(ctx, what, method, path, body)
	if err != nil {
		return api.Message{}, err
	}
	defer resp.Body.Close()
	m, err := readStream(resp.Body, onEvent)
	if err != nil {
		return api.Message{}, c.gone(ctx, what, err)
	}
	return m, m.Error.Err()
}

// Events delivers events until ctx ends (nil) or the daemon goes away. ref "" = of everything.
func (c *Client) Events(ctx context.Context, ref string, onEvent func(vm.Event)) error {
	const what = "following events"
	p := api.PathEvents
	if ref != "" {
		p += "?" + url.Values{"vm": {ref}}.Encode()
	}
	resp, err := c.send(ctx, what, http.MethodGet, p, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = readLines(resp.Body, func(line []byte) (bool, error) {
		var e vm.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return false, vm.Errorf(vm.CodeInternal, "decode an event of the daemon: %w", err)
		}
		onEvent(e)
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return c.gone(ctx, what, err)
}

// readStream reads NDJSON messages until the one with Done. A stream that ends before it is io.ErrUnexpectedEOF.
func readStream(r io.Reader, onEvent func(vm.Event)) (last api.Message, err error) {
	err = readLines(r, func(line []byte) (bool, error) {
		var m api.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return false, vm.Errorf(vm.CodeInternal, "decode a message of the daemon: %w", err)
		}
		if m.Event != nil && onEvent != nil {
			onEvent(*m.Event)
		}
		last = m
		return m.Done, nil
	})
	return last, err
}

// readLines calls f for each line until it says that this was the last one.
func readLines(r io.Reader, f func(line []byte) (last bool, err error)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		if len(s.Bytes()) == 0 {
			continue
		}
		if last, err := f(s.Bytes()); last || err != nil {
			return err
		}
	}
	if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
		return vm.Errorf(vm.CodeInternal, "a line of the daemon's answer has more than %d bytes", maxLine)
	} else if err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
