package agent

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// serveAgent runs a server on a unix socket of the host, and returns how to reach it.
func serveAgent(t testing.TB) (s *Server, socket string) {
	t.Helper()
	r, stop := newReaper(false)
	t.Cleanup(stop)
	s, err := newServer(r, noSystem{t})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s.null) })
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = s.Serve(l) }()
	return s, socket
}

// noSystem fails the test when anything is done to the machine.
type noSystem struct{ t testing.TB }

func (n noSystem) signalAll(syscall.Signal) { n.t.Error("signalled every process of the host") }
func (n noSystem) askInit() bool            { n.t.Error("asked the host's init"); return false }
func (n noSystem) settleDisks()             { n.t.Error("settled the host's disks") }
func (n noSystem) end()                     { n.t.Error("ended the host") }

// execStream is the client's side of one exec.
type execStream struct {
	net.Conn
	in  *guest.FrameReader
	out *guest.FrameWriter
	at  int64 // where in a job's output it begins
}

func dialExec(t testing.TB, socket string, req guest.ExecRequest) *execStream {
	t.Helper()
	return dialStream(t, socket, guest.PathExec, req)
}

func dialStream(t testing.TB, socket, path string, req any) *execStream {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	body, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: guest\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n%s",
		path, guest.UpgradeExec, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s answered %s: %s", path, resp.Status, text)
	}
	return &execStream{conn, guest.NewFrameReader(buffered), guest.NewFrameWriter(conn), 0}
}

// result is what one exec gave.
type result struct {
	started        bool
	stdout, stderr bytes.Buffer
	exit           guest.ExecExit
}

// wait reads frames until the exit, which must be the last.
func (e *execStream) wait(t testing.TB) *result {
	t.Helper()
	var r result
	for {
		kind, b, err := e.in.Next()
		if err != nil {
			t.Fatalf("stream ended without an exit: %v (stdout %q)", err, tail(r.stdout.String()))
		}
		switch kind {
		case guest.FrameStarted:
			if r.stdout.Len()+r.stderr.Len() > 0 {
				t.Error("output came before the start")
			}
			r.started = true
		case guest.FrameStdout:
			r.stdout.Write(b)
		case guest.FrameStderr:
			r.stderr.Write(b)
		case guest.FrameExit:
			unmarshal(t, b, &r.exit)
			if _, _, err := e.in.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the exit: %v, want end of stream", err)
			}
			_ = e.Close()
			return &r
		default:
			t.Fatalf("frame of type %d", kind)
		}
	}
}

// readUntil collects output until it holds want.
func (e *execStream) readUntil(t testing.TB, want string) string {
	t.Helper()
	var all strings.Builder
	_ = e.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer func() { _ = e.SetReadDeadline(time.Time{}) }()
	for !strings.Contains(all.String(), want) {
		kind, b, err := e.in.Next()
		if err != nil {
			t.Fatalf("waiting for %q after %q: %v", want, all.String(), err)
		}
		if kind == guest.FrameStdout {
			all.Write(b)
		}
	}
	return all.String()
}

func (e *execStream) resize(t testing.TB, rows, cols uint16) {
	t.Helper()
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols)
	if err := e.out.Write(guest.FrameResize, b); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, socket string, req guest.ExecRequest) *result {
	t.Helper()
	if req.Dir == "" {
		req.Dir = "/"
	}
	return dialExec(t, socket, req).wait(t)
}

func sh(script string) guest.ExecRequest {
	return guest.ExecRequest{Argv: []string{"sh", "-c", script}}
}

func unmarshal(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func tail(s string) string { return s[max(0, len(s)-80):] }
