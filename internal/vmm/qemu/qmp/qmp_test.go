package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/testhost"
)

const hello = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

type command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        uint64          `json:"id"`
}

// serve is a monitor that greets, accepts qmp_capabilities and passes everything after it to answer, whose lines it sends.
func serve(t *testing.T, answer func(command) []string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = theirs.Close(); wg.Wait() })
	wg.Go(func() {
		defer func() { _ = theirs.Close() }()
		if _, err := fmt.Fprintln(theirs, hello); err != nil {
			return
		}
		in := bufio.NewScanner(theirs)
		for in.Scan() {
			var c command
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				t.Errorf("client sent %q: %v", in.Text(), err)
				return
			}
			lines := []string{fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID)}
			if c.Execute != "qmp_capabilities" {
				lines = answer(c)
			}
			if lines == nil {
				return
			}
			for _, l := range lines {
				if _, err := fmt.Fprint(theirs, l+"\r\n"); err != nil {
					return
				}
			}
		}
	})
	return ours
}

func open(t *testing.T, answer func(command) []string) *Client {
	t.Helper()
	c, err := New(t.Context(), serve(t, answer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestExecute(t *testing.T) {
	c := open(t, func(c command) []string {
		switch c.Execute {
		case "query-status":
			return []string{
				`{"event": "RESUME", "timestamp": {"seconds": 7, "microseconds": 5}}`,
				`{"return": {"status": "stale"}, "id": 999}`, // an answer nobody waits for
				fmt.Sprintf(`{"return": {"running": true, "args": %s}, "id": %d}`, c.Arguments, c.ID),
			}
		default:
			return []string{fmt.Sprintf(`{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": %d}`, c.ID)}
		}
	})
	var got struct {
		Running bool
		Args    struct{ A int }
	}
	if err := c.Execute(t.Context(), "query-status", map[string]int{"a": 3}, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Running || got.Args.A != 3 {
		t.Errorf("answer is %+v", got)
	}
	if e := <-c.Events(); e.Name != "RESUME" || !e.Time.Equal(time.Unix(7, 5000)) {
		t.Errorf("event is %+v", e)
	}
	var refused *Error
	if err := c.Execute(t.Context(), "bogus", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" || refused.Command != "bogus" {
		t.Errorf("refusal is %v", err)
	}
}

// Answers come to their own callers, in whatever order QEMU gives them.
func TestAnswersOutOfOrder(t *testing.T) {
	var held []string
	c := open(t, func(c command) []string {
		held = append([]string{fmt.Sprintf(`{"return": %s, "id": %d}`, c.Arguments, c.ID)}, held...)
		if len(held) < 3 {
			return []string{}
		}
		return held
	})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			var got int
			if err := c.Execute(t.Context(), "echo", i, &got); err != nil || got != i {
				t.Errorf("echo %d: %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestEndWhileWaiting(t *testing.T) {
	c := open(t, func(command) []string { return nil }) // hangs up
	if err := c.Execute(t.Context(), "quit", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := c.Execute(t.Context(), "quit", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: got %v, want ErrClosed", err)
	}
	if _, ok := <-c.Events(); ok {
		t.Error("events go on after the end")
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	asked := make(chan struct{}, 1)
	c := open(t, func(c command) []string {
		if c.Execute == "slow" {
			asked <- struct{}{}
			return []string{}
		}
		return []string{fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID)}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := c.Execute(ctx, "slow", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if err := c.Execute(t.Context(), "next", nil, nil); err != nil {
		t.Errorf("the connection must outlive a cancelled command: %v", err)
	}
}

func TestSlowReaderLosesOldestEvents(t *testing.T) {
	c := open(t, func(c command) []string {
		var lines []string
		for i := range queuedEvents + 10 {
			lines = append(lines, fmt.Sprintf(`{"event": "E%d", "timestamp": {}}`, i))
		}
		return append(lines, fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID))
	})
	if err := c.Execute(t.Context(), "flood", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-c.Events(); e.Name != "E10" {
		t.Errorf("first kept event is %s, want E10", e.Name)
	}
}

func TestNewRefuses(t *testing.T) {
	long := `{"QMP": {"x": "` + strings.Repeat("x", maxLine) + `"}}`
	for name, first := range map[string]string{
		"no json": "SSH-2.0-OpenSSH\n", "an answer": "{\"return\": {}}\n", "nothing": "", "endless line": long,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = theirs.Write([]byte(first))
				_ = theirs.Close()
			}()
			if c, err := New(t.Context(), ours); err == nil {
				_ = c.Close()
				t.Error("accepted")
			}
		})
	}
}

// A monitor that is busy with another client accepts and says nothing.
func TestNewGivesUpWithContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want deadline exceeded", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		hello, `{"return": {}, "id": 1}`, `{"return": null}`, `{"error": {"class": "GenericError", "desc": "d"}, "id": 2}`,
		`{"event": "STOP", "data": {"a": []}, "timestamp": {"seconds": 1, "microseconds": 2}}`, `{}`, `[]`, `{"id": -1, "return": 3}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decode(line)
		if err != nil {
			return
		}
		kinds := 0
		for _, is := range []bool{m.greeting != nil, m.event != nil, m.result != nil, m.refusal != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%q is %d things", line, kinds)
		}
	})
}

func TestRealQEMU(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.QEMU)
	testhost.Leaks(t)
	sock := filepath.Join(t.TempDir(), "q.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"}) // QEMU dials us: no wait for its socket
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "unix:"+sock)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var status struct{ Status string }
	if err := c.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "prelaunch" {
		t.Errorf("status %q, %v", status.Status, err)
	}
	var schema []any
	if err := c.Execute(t.Context(), "query-qmp-schema", nil, &schema); err != nil || len(schema) < 100 {
		t.Errorf("schema of %d entries, %v", len(schema), err)
	}
	var refused *Error
	if err := c.Execute(t.Context(), "device_del", map[string]string{"id": "none"}, nil); !errors.As(err, &refused) {
		t.Errorf("got %v, want a refusal", err)
	}
	if err := c.Execute(t.Context(), "quit", nil, nil); err != nil && !errors.Is(err, ErrClosed) {
		t.Errorf("quit: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("qemu ends with %v", err)
	}
}
