package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guest"
)

// slowAgent is the agent of a guest that takes its time to start a command. It tells the first frame that its client sends.
type slowAgent struct {
	asked chan struct{} // gets one when a command is asked for
	begin chan struct{} // closed when it is started
	first chan string
}

func (a *slowAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		a.first <- err.Error()
		return
	}
	defer func() { _ = conn.Close() }()
	a.asked <- struct{}{}
	<-a.begin
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", guest.UpgradeExec)
	kind, _, err := guest.NewFrameReader(rw).Next()
	a.first <- fmt.Sprintf("frame %d, %v", kind, err)
}

// A client that is interrupted while its command is being started leaves nothing that runs on without anybody.
func TestClientGoesWhileItsCommandIsStarted(t *testing.T) {
	agent := &slowAgent{make(chan struct{}, 1), make(chan struct{}), make(chan string, 1)}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	far := &httptest.Server{Listener: l, Config: &http.Server{Handler: agent}}
	far.Start()
	defer far.Close()
	c := guest.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.Addr().String())
	})
	s := &server{Config: Config{Log: slog.New(slog.DiscardHandler)}}
	left := make(chan struct{})
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		s.proxy(c, "web", guest.PathExec).ServeHTTP(w, r)
	}))
	defer near.Close()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, near.URL, strings.NewReader(`{"argv":["make"]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", guest.UpgradeExec)
	go func() {
		<-agent.asked
		cancel()
	}()
	if answer, err := http.DefaultClient.Do(r); err == nil {
		_ = answer.Body.Close()
		t.Fatalf("answered %s before the command was started", answer.Status)
	}
	<-left // nobody is held by a guest that takes its time
	close(agent.begin)
	if got, want := <-agent.first, fmt.Sprintf("frame %d, <nil>", guest.FrameBye); got != want {
		t.Errorf("the agent got %s, want %s", got, want)
	}
}
