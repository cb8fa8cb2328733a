package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

// stuck is a client that reads nothing until it is released.
type stuck struct {
	*httptest.ResponseRecorder
	begun    chan struct{} // closed at the first write
	once     sync.Once
	released chan struct{}

	mu   sync.Mutex
	seen bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.released
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(p)
}

func (s *stuck) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// A client that does not keep up is told that it has missed something, and goes on.
func TestEventsThatAreMissed(t *testing.T) {
	c, _, _, handler, _ := serveHandler(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := &stuck{ResponseRecorder: httptest.NewRecorder(), begun: make(chan struct{}), released: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, api.PathEvents, nil))
	}()
	create := func(name string) {
		t.Helper()
		if _, err := c.Create(t.Context(), api.CreateRequest{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s: %s", what, w.text())
			}
		}
	}
	until("following", func() bool {
		create("")
		select {
		case <-w.begun:
			return true
		default:
			return false
		}
	})
	for range 300 { // more than is kept for it
		create("")
	}
	close(w.released)
	until("told", func() bool { return strings.Contains(w.text(), `"note"`) })
	create("last")
	until("going on", func() bool { return strings.Contains(w.text(), `"last"`) })
	cancel()
	<-done
	notes := 0
	for s := bufio.NewScanner(strings.NewReader(w.text())); s.Scan(); {
		var e vm.Event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		if e.Kind == "note" {
			notes++
			if !strings.Contains(e.Text, "missing") || e.Time.IsZero() || e.VM != "" {
				t.Errorf("%s", s.Text())
			}
		}
	}
	if notes != 1 {
		t.Errorf("told %d times", notes)
	}
}
