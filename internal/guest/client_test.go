package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/vm"
)

// fakeAgent serves h on a unix socket.
func fakeAgent(t *testing.T, h http.Handler) Dialer {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", l.Addr().String())
	}
}

func TestClientCalls(t *testing.T) {
	var got Configure
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathHello, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Hello{Protocol: 1, Hostname: "x"})
	})
	mux.HandleFunc("POST "+PathConfigure, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&got)
		_ = json.NewEncoder(w).Encode(Hello{Configured: got.ID})
	})
	mux.HandleFunc("POST "+PathSync, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInsufficientStorage)
		_ = json.NewEncoder(w).Encode(ErrorBody{Code: string(vm.CodeNoSpace), Message: "disk full", Hint: "free some"})
	})
	mux.HandleFunc("GET "+PathStats, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no JSON", http.StatusTeapot) })
	mux.HandleFunc("GET "+PathProcesses, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Processes{Processes: []Process{{PID: 1, User: "ro\not", State: "S", Command: "x\x1b[2J"}}})
	})
	mux.HandleFunc("POST "+PathPowerOff, func(http.ResponseWriter, *http.Request) {})
	c := NewClient(fakeAgent(t, mux))
	ctx := t.Context()
	if h, err := c.Hello(ctx); err != nil || h.Hostname != "x" {
		t.Errorf("hello: %+v, %v", h, err)
	}
	if h, err := c.Configure(ctx, Configure{ID: "abc"}); err != nil || h.Configured != "abc" || got.ID != "abc" {
		t.Errorf("configure: %+v, %v", h, err)
	}
	if err := c.Sync(ctx); vm.CodeOf(err) != vm.CodeNoSpace || vm.HintOf(err) != "free some" || err.Error() != "disk full" {
		t.Errorf("sync: %v", err)
	}
	if _, err := c.Stats(ctx); vm.CodeOf(err) != vm.CodeInternal || !strings.Contains(err.Error(), "418") {
		t.Errorf("stats: %v", err)
	}
	if err := c.PowerOff(ctx, PowerOff{}); err != nil {
		t.Errorf("poweroff: %v", err)
	}
	if p, err := c.Processes(ctx); err != nil || len(p.Processes) != 1 || p.Processes[0] != (Process{PID: 1, User: "ro ot", State: "S", Command: "x [2J"}) {
		t.Errorf("processes: %+v, %v", p, err)
	}
	if _, err := c.Exec(ctx, ExecRequest{}); !strings.Contains(vm.HintOf(err), "older banger") || vm.CodeOf(err) != vm.CodeInternal || !strings.Contains(err.Error(), "404") {
		t.Errorf("exec at an agent without one: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Hello(ended); vm.CodeOf(err) != vm.CodeCanceled || !errors.Is(err, context.Canceled) {
		t.Errorf("hello after the context: %v", err)
	}
}

// TestWaitHello meets an agent that refuses, drops, stays silent, errs, and then answers.
func TestWaitHello(t *testing.T) {
	var n atomic.Int32
	answers := fakeAgent(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Load() < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(Hello{Version: "v"})
	}))
	c := NewClient(func(ctx context.Context) (net.Conn, error) {
		switch n.Add(1) {
		case 1:
			return nil, errors.New("refused")
		case 2:
			a, b := net.Pipe()
			_ = b.Close()
			return a, nil
		}
		return answers(ctx)
	})
	start := time.Now()
	h, err := c.WaitHello(t.Context())
	if err != nil || h.Version != "v" {
		t.Fatalf("%+v, %v", h, err)
	}
	dialed := n.Load()
	for range 3 { // on the connection that was answered
		if h, err := c.Hello(t.Context()); err != nil || h.Version != "v" {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if n.Load() != dialed {
		t.Errorf("%d more connections for what one of them could carry", n.Load()-dialed)
	}
	if d := time.Since(start); d > 500*time.Millisecond {
		t.Errorf("four tries took %v", d)
	}

	silent := NewClient(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		return a, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := silent.WaitHello(ctx); vm.CodeOf(err) != vm.CodeUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent agent: %v", err)
	}
}

// execEcho upgrades, says hello in the same write as the 101, and echoes.
func execEcho(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	conn, in, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n"+string(body)+"\n")
	_, _ = io.Copy(conn, in)
}

// TestUpgradeThroughProxy is the daemon's way: client, reverse proxy on the Client's transport, mux, port, agent.
func TestUpgradeThroughProxy(t *testing.T) {
	p := newFakePort()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := &http.Server{Handler: http.HandlerFunc(execEcho)}
	go func() { _ = serveDevice(ctx, p, srv.Serve) }()
	m := fakeMux(t, p)
	agent := NewClient(m.Dial)
	target, _ := url.Parse("http://guest")
	daemon := fakeAgent(t, &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: agent.Transport(), FlushInterval: -1,
	})
	for name, c := range map[string]*Client{"direct": agent, "proxied": NewClient(daemon)} {
		stream, err := c.Exec(t.Context(), ExecRequest{Argv: []string{"true"}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		in := bufio.NewReader(stream)
		if line, err := in.ReadString('\n'); err != nil || line != `{"argv":["true"]}`+"\n" {
			t.Errorf("%s: what came with the answer: %q, %v", name, line, err)
		}
		want := bytes.Repeat([]byte("abc"), 1<<20)
		go func() { _, _ = stream.Write(want) }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: echo: %v", name, err)
		}
		_ = stream.Close()
	}
	_ = m.Close()
}

func TestUpgradeEndsWithContext(t *testing.T) {
	block := make(chan struct{})
	dial := fakeAgent(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	defer close(block)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(dial).SSH(ctx); vm.CodeOf(err) != vm.CodeCanceled {
		t.Errorf("error %v, want the context's", err)
	}
}

// TestIdleConnectionsEndWithSession: after a new session, no request may meet a connection of the old one.
func TestIdleConnectionsEndWithSession(t *testing.T) {
	p := newFakePort()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = serveDevice(ctx, p, func(l net.Listener) error {
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(Hello{})
			})}
			return srv.Serve(l)
		})
	}()
	var m *Mux
	c := NewClient(func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx) })
	for range 3 {
		m = fakeMux(t, p)
		for range 2 {
			if err := c.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		p.unplug(true, 0, 0)
		<-m.Done()
	}
}

// TestHeadIsBounded: a guest that sends an answer's head without end must not fill the daemon's memory.
func TestHeadIsBounded(t *testing.T) {
	const enough = 16 * maxHead // what a daemon without a bound would take
	ask := func(t *testing.T, do func(*Client) error) {
		var taken atomic.Int64
		c := NewClient(func(context.Context) (net.Conn, error) {
			host, agent := net.Pipe()
			t.Cleanup(func() { _ = host.Close() })
			go func() { _, _ = io.Copy(io.Discard, agent) }()
			go func() {
				defer func() { _ = agent.Close() }()
				_, _ = io.WriteString(agent, "HTTP/1.1 101 Switching Protocols\r\n")
				for line := []byte("X: " + strings.Repeat("x", 1000) + "\r\n"); taken.Load() < enough; {
					n, err := agent.Write(line)
					if taken.Add(int64(n)); err != nil {
						return
					}
				}
			}()
			return host, nil
		})
		if err := do(c); err == nil || taken.Load() > 2*maxHead {
			t.Errorf("%v, after %d bytes", err, taken.Load())
		}
	}
	for name, do := range map[string]func(*Client) error{
		"hello":     func(c *Client) error { _, err := c.tryHello(t.Context(), time.Minute); return err },
		"upgrade":   func(c *Client) error { _, err := c.SSH(t.Context()); return err },
		"transport": func(c *Client) error { return c.Sync(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) { ask(t, do) })
	}
}
