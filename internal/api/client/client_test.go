package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// serve answers on a socket of its own until the test ends.
func serve(t *testing.T, h http.HandlerFunc) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "client") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() {
		s.Close()
		os.RemoveAll(dir)
	})
	return socket
}

// hangUp ends the connection in the middle of an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func TestStream(t *testing.T) {
	for _, c := range []struct {
		name, body string
		events     int
		code       vm.Code // of the error; empty = none
		says       string
	}{
		{"events and a VM", `{"event":{"stage":"boot"}}` + "\n\n" + `{"event":{"stage":"agent"}}` + "\n" + `{"done":true,"vm":{"name":"web"}}`, 2, "", ""},
		{"an error at the end", `{"event":{}}` + "\n" + `{"done":true,"error":{"code":"no_space","message":"the disk is full","hint":"make room"}}`, 1, vm.CodeNoSpace, "the disk is full"},
		{"no end", `{"event":{}}` + "\n", 1, vm.CodeUnavailable, "the daemon went away while creating a VM; VMs keep running"},
		{"nothing", "", 0, vm.CodeUnavailable, "went away"},
		{"no JSON", "<html>\n", 0, vm.CodeInternal, "decode"},
		{"a line without end", strings.Repeat(" ", 2<<20), 0, vm.CodeInternal, "more than"},
		{"no VM", `{"done":true}`, 0, vm.CodeInternal, "names no VM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := 0
			cl := New(serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, c.body) }))
			record, err := cl.Create(context.Background(), api.CreateRequest{}, func(vm.Event) { events++ })
			if events != c.events {
				t.Errorf("%d events, want %d", events, c.events)
			}
			if c.code == "" {
				if err != nil || record.Name != "web" {
					t.Errorf("%+v, %v", record, err)
				}
				return
			}
			var e *vm.Error
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Message, c.says) {
				t.Errorf("%#v, want %s and %q", err, c.code, c.says)
			}
		})
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add([]byte(`{"event":{"stage":"boot"}}` + "\n" + `{"done":true}` + "\n"))
	f.Add([]byte("\n\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readStream(strings.NewReader(string(b)), func(vm.Event) {})
		if err == nil && !m.Done {
			t.Errorf("a stream without an end is no error: %+v", m)
		}
	})
}

func TestErrorAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		code   vm.Code
		says   string
		hint   string
	}{
		{409, `{"code":"exists","message":"there is a VM web already","hint":"choose another"}`, vm.CodeExists, "there is a VM web already", "choose another"},
		{404, "404 page not found", vm.CodeNotFound, "listing VMs: the daemon answered 404 Not Found", ""},
		{500, "", vm.CodeInternal, "the daemon answered 500", ""},
		{200, "[", vm.CodeInternal, "not understood", ""},
	} {
		cl := New(serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		_, err := cl.VMs(context.Background())
		if vm.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) || vm.HintOf(err) != c.hint {
			t.Errorf("%d %s: %v (%s, %q)", c.status, c.body, err, vm.CodeOf(err), vm.HintOf(err))
		}
	}
}

func TestNoDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, socket := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "directory"), stale} {
		if _, err := New(socket).VMs(context.Background()); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s: %v", socket, err)
		}
		if _, err := New(socket).Exec(context.Background(), "web", guest.ExecRequest{}); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s: exec: %v", socket, err)
		}
	}
}

func TestStart(t *testing.T) {
	real := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "[]") })
	link := filepath.Join(filepath.Dir(real), "link")
	starts := 0
	cl := New(link, WithStart(func(context.Context) error { starts++; return os.Symlink(real, link) }))
	for range 2 {
		if _, err := cl.VMs(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if starts != 1 {
		t.Errorf("started %d times", starts)
	}
	refused := vm.Errorf(vm.CodeMissing, "find the daemon").WithHint("install it")
	cl = New(link+"2", WithStart(func(context.Context) error { return refused }))
	if _, err := cl.VMs(context.Background()); vm.CodeOf(err) != vm.CodeMissing || err.Error() != "find the daemon" || vm.HintOf(err) != "install it" {
		t.Errorf("the reason why it does not start is lost: %v", err)
	}
}

func TestDaemonGoesAway(t *testing.T) {
	cl := New(serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path { // it answered when it was called, and dies of the request
		case api.PathVersion:
		case path(api.PathVMLogs, "web"): // in the midst of the answer
			io.WriteString(w, "[    0.000000] Linux version")
			w.(http.Flusher).Flush()
			fallthrough
		default:
			hangUp(w)
		}
	}))
	for name, do := range map[string]func() error{
		"list":   func() error { _, err := cl.VMs(context.Background()); return err },
		"stream": func() error { return cl.Delete(context.Background(), "web", nil) },
		"exec": func() error {
			_, err := cl.Exec(context.Background(), "web", guest.ExecRequest{})
			return err
		},
		"logs": func() error {
			log, err := cl.Logs(context.Background(), "web", LogQuery{Follow: true})
			if err != nil {
				return fmt.Errorf("before it is read: %w", err)
			}
			defer log.Close()
			_, err = io.ReadAll(log)
			return err
		},
	} {
		err := do()
		if vm.CodeOf(err) != vm.CodeUnavailable || !strings.HasPrefix(err.Error(), "the daemon went away while ") || !strings.Contains(err.Error(), "VMs keep running") || strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCause: a request that the user broke off is no fault of the daemon.
func TestCause(t *testing.T) {
	why := errors.New("Ctrl-C")
	ctx, cancel := context.WithCancelCause(context.Background())
	cl := New(serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(why); <-r.Context().Done() }))
	if _, err := cl.VMs(ctx); !errors.Is(err, why) {
		t.Errorf("list: %v", err)
	}
	if _, err := cl.Exec(ctx, "web", guest.ExecRequest{}); !errors.Is(err, why) {
		t.Errorf("exec: %v", err)
	}
}

func TestRefAndQuery(t *testing.T) {
	var got string
	cl := New(serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.RequestURI
		w.Header().Set(guest.StatHeader, "e30=") // {}
	}))
	ctx := context.Background()
	for want, do := range map[string]func(){
		"DELETE /v1/vms/web":                     func() { _ = cl.Delete(ctx, "web", nil) },
		"GET /v1/vms/..%2F..%2Fx%3Fy":            func() { _, _ = cl.VM(ctx, "../../x?y") },
		"GET /v1/vms/%2E%2E":                     func() { _, _ = cl.VM(ctx, "..") },
		"GET /v1/vms/web/logs?follow=1&tail=0":   func() { _, _ = cl.Logs(ctx, "web", LogQuery{Follow: true, Tail: 0}) },
		"HEAD /v1/vms/web/files?path=%2Fa+b%26c": func() { _, _ = cl.StatFile(ctx, "web", "/a b&c") },
		"PUT /v1/vms/web/files?path=%2F":         func() { _ = cl.PutFiles(ctx, "web", "/", strings.NewReader("")) },
		"POST /v1/vms/web/exec":                  func() { _, _ = cl.Exec(ctx, "web", guest.ExecRequest{}) },
		"POST /v1/vms/web/ssh":                   func() { _, _ = cl.SSH(ctx, "web") },
		"GET /v1/events?vm=web":                  func() { _ = cl.Events(ctx, "web", func(vm.Event) {}) },
	} {
		if do(); strings.ReplaceAll(got, "%2E%2E%2F", "..%2F") != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestVersionIsToldOnce(t *testing.T) {
	var told []string
	cl := New(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(api.VersionHeader, "1.2.3")
		w.WriteHeader(http.StatusTeapot) // on errors as well
	}), WithVersion(func(v string) { told = append(told, v) }))
	for range 2 {
		_, _ = cl.VMs(context.Background())
	}
	if len(told) != 1 || told[0] != "1.2.3" {
		t.Errorf("told %v", told)
	}
}

// TestUpgrade: what the other end sends right behind its answer is not lost, and half-close works.
func TestUpgrade(t *testing.T) {
	cl := New(serve(t, func(w http.ResponseWriter, r *http.Request) {
		var e guest.ExecRequest
		json.NewDecoder(r.Body).Decode(&e)
		if r.Header.Get("Upgrade") != guest.UpgradeExec || len(e.Argv) != 1 || e.Argv[0] != "true" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, rw, _ := w.(http.Hijacker).Hijack()
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: "+guest.UpgradeExec+"\r\nConnection: Upgrade\r\n\r\nearly ")
		b, _ := io.ReadAll(rw)
		io.WriteString(conn, "got "+string(b))
	}))
	conn, err := cl.Exec(context.Background(), "web", guest.ExecRequest{Argv: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "early got hello" {
		t.Errorf("%q, %v", b, err)
	}
}
