package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A body that waits is given up when its connection ends, and only then: the connection of an answered request is its next
// one's, and ends some day.
func TestTie(t *testing.T) {
	arrived := make(chan struct{}, 1)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs-up" {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil { // a handler's return would wait for the body
				_ = conn.Close()
			}
			return
		}
		_, _ = io.ReadFull(r.Body, make([]byte, len("some")))
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer far.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return Tieable(conn), nil
	}}
	send := func(ctx context.Context, path string, body io.ReadCloser, giveUp func()) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, far.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r, untie := Tie(r, giveUp)
		defer untie()
		answer, err := transport.RoundTrip(r)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	var early atomic.Int32
	if err := send(t.Context(), "/", io.NopCloser(strings.NewReader("all of it")), func() { early.Add(1) }); err != nil {
		t.Fatal(err)
	}
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, tt := range []struct {
		path string
		want error
	}{{"/hangs-up", ErrEnded}, {"/waits", context.Canceled}} {
		idle, typing := io.Pipe()
		defer func() { _ = typing.Close() }()
		var given atomic.Int32
		ended := make(chan error, 1)
		go func() {
			ended <- send(ctx, tt.path, idle, func() {
				given.Add(1)
				_ = idle.Close()
			})
		}()
		if errors.Is(tt.want, context.Canceled) {
			if _, err := typing.Write([]byte("some")); err != nil {
				t.Fatal(err)
			}
			<-arrived
			cancel()
		}
		select {
		case err := <-ended:
			if !errors.Is(err, tt.want) || given.Load() != 1 {
				t.Errorf("%s: %v, given up %d times", tt.path, err, given.Load())
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: it does not end", tt.path)
		}
	}
	transport.CloseIdleConnections()
	if n := early.Load(); n > 0 {
		t.Errorf("a body that had been sent was given up %d times", n)
	}
}
