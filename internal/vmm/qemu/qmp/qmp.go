// Package qmp speaks the QEMU Machine Protocol on a unix socket: one JSON object a line, a greeting, commands answered
// by id, events in between. It knows the protocol and no command but qmp_capabilities; what commands mean is its
// callers' business.
//
// QEMU serves one client of a monitor at a time: a second connection waits without a greeting until the first closes.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// maxLine bounds a line from QEMU. The longest known, query-qmp-schema's answer, has about 200 KiB.
const maxLine = 4 << 20

// queued events are kept for a slow reader of Events; the oldest are dropped first.
const queuedEvents = 64

// ErrClosed says that the connection has ended: by Close, by QEMU's exit, or by a line that is no QMP.
var ErrClosed = errors.New("qmp connection is closed")

// Client is one connection in command mode; safe for several goroutines.
type Client struct {
	conn   net.Conn
	events chan Event
	done   chan struct{} // closed when reading has ended

	mu      sync.Mutex // guards the fields below, and writing
	nextID  uint64
	waiting map[uint64]chan message
	ended   error // why reading ended
}

// Dial connects to the monitor at sock, reads the greeting and leaves negotiation mode. ctx bounds the dialling only.
func Dial(ctx context.Context, sock string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", sock)
	if err != nil {
		return nil, fmt.Errorf("connect to qmp: %w", err)
	}
	c, err := New(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("open qmp at %s: %w", sock, err)
	}
	return c, nil
}

// New does the same on an existing connection, which it owns from then on, also on error.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	c := &Client{
		conn:    conn,
		events:  make(chan Event, queuedEvents),
		done:    make(chan struct{}),
		waiting: map[uint64]chan message{},
	}
	if err := greet(lines); err != nil {
		stop()
		_ = conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	go c.read(lines)
	err := c.Execute(ctx, "qmp_capabilities", nil, nil)
	if !stop() && err == nil {
		err = ctx.Err() // it ended in between, and took the connection along
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// greet reads up to the greeting, which comes first.
func greet(lines *bufio.Scanner) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read qmp greeting: %w", err)
		}
		return fmt.Errorf("read qmp greeting: %w", ErrClosed)
	}
	m, err := decode(lines.Bytes())
	if err != nil {
		return err
	}
	if m.greeting == nil {
		return errors.New("read qmp greeting: something else came first")
	}
	return nil
}

// read delivers answers and events until the connection ends.
func (c *Client) read(lines *bufio.Scanner) {
	err := ErrClosed
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		m, derr := decode(append([]byte(nil), lines.Bytes()...))
		if derr != nil {
			err = fmt.Errorf("%w: %w", ErrClosed, derr)
			break
		}
		c.deliver(m)
	}
	if serr := lines.Err(); serr != nil && !errors.Is(serr, net.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrClosed, serr)
	}
	_ = c.conn.Close()
	c.mu.Lock()
	c.ended = err
	c.mu.Unlock()
	close(c.done)
	close(c.events)
}

func (c *Client) deliver(m message) {
	switch {
	case m.event != nil:
		for {
			select {
			case c.events <- *m.event:
				return
			default:
			}
			select { // full: the oldest goes
			case <-c.events:
			default:
			}
		}
	case m.id != nil:
		c.mu.Lock()
		answer := c.waiting[*m.id]
		delete(c.waiting, *m.id)
		c.mu.Unlock()
		if answer != nil { // nil: its caller has gone
			answer <- m
		}
	}
}

// Execute runs one command. args is marshalled as its arguments, nil for none; the answer is unmarshalled into result
// unless that is nil. A refusal is an *Error. After ctx's end the command may still have been carried out.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	answer := make(chan message, 1)
	id, err := c.send(command, args, answer)
	if err != nil {
		return fmt.Errorf("send qmp command %s: %w", command, err)
	}
	var m message
	select {
	case m = <-answer:
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return fmt.Errorf("wait for qmp command %s: %w", command, ctx.Err())
	case <-c.done:
		select {
		case m = <-answer: // it came just before the end
		default:
			return fmt.Errorf("wait for qmp command %s: %w", command, c.ended)
		}
	}
	if m.refusal != nil {
		m.refusal.Command = command
		return m.refusal
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.result, result); err != nil {
		return fmt.Errorf("read answer to qmp command %s: %w", command, err)
	}
	return nil
}

func (c *Client) send(command string, args any, answer chan message) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return 0, c.ended
	}
	c.nextID++
	id := c.nextID
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return 0, err
	}
	c.waiting[id] = answer
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		delete(c.waiting, id)
		return 0, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return id, nil
}

// Events delivers what QEMU reports, from the moment the client was made; closed when the connection ends. Of a
// reader that falls behind the oldest events are dropped.
func (c *Client) Events() <-chan Event { return c.events }

// Close ends the connection, and every Execute that waits. Closing twice is harmless.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
