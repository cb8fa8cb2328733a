package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/api/client"
)

// Who breaks a copy off says why; that the pipe to it was closed then is no news.
func TestABrokenCopyNamesTheCause(t *testing.T) {
	answer, local := errors.New("the guest hung up"), errors.New("read here: input/output error")
	for _, c := range []struct{ sent, written, want error }{
		{nil, nil, nil},
		{answer, nil, answer},
		{answer, errStopped, answer},
		{answer, fmt.Errorf("write: %w", io.ErrClosedPipe), answer},
		{nil, errStopped, nil},
		{nil, io.ErrClosedPipe, io.ErrClosedPipe}, // not all of it went out, and nobody says that this was right
		{answer, local, local},
		{nil, local, local},
	} {
		if got := broken(c.sent, c.written); !errors.Is(got, c.want) {
			t.Errorf("sent: %v, written: %v: got %v, want %v", c.sent, c.written, got, c.want)
		}
	}
}

// What is refused ends at once, whatever its input may still say.
func TestARefusedCopyDoesNotWaitForItsInput(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	check(t, err)
	daemon := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // not to wait for the body either
		http.Error(w, "no", http.StatusTeapot)
	})}}
	daemon.Start()
	t.Cleanup(daemon.Close)
	c := client.New(socket)
	t.Cleanup(c.Close)
	input, typing := io.Pipe()
	t.Cleanup(func() { _ = typing.Close() })
	failed := make(chan error, 1)
	go func() {
		failed <- copying{c: c, p: (&app{err: os.Stderr}).progress(true)}.put(t.Context(), place{"web", "/"}, func(w io.Writer) error {
			_, err := io.Copy(w, input)
			return err
		})
	}()
	select {
	case err := <-failed:
		if err == nil || !strings.Contains(err.Error(), "418") {
			t.Errorf("%v", err)
		}
	case <-time.After(soon):
		t.Fatal("it does not end")
	}
}
