package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/testhost"
)

// However its socket is taken from it, a daemon can be reached soon after, by the same listener.
func TestKeep(t *testing.T) {
	dir := filepath.Join(testhost.Dir(t), "run")
	path := filepath.Join(dir, "bangerd.sock")
	ensure := func(context.Context) error { return os.MkdirAll(dir, 0o700) }
	if err := ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := Keep(t.Context(), path, ensure, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	reached := func() bool {
		c, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		got, _ := io.ReadAll(c)
		return bytes.Equal(got, []byte("hello"))
	}
	if !reached() {
		t.Fatal("it does not listen")
	}
	for name, take := range map[string]func() error{
		"socket":          func() error { return os.Remove(path) },
		"directory":       func() error { return os.RemoveAll(dir) },
		"another file":    func() error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"a moved socket":  func() error { return os.Rename(path, path+".old") },
		"another's place": func() error { return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path)) },
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); !reached(); time.Sleep(time.Millisecond) { // another process's view: no event
			if time.Now().After(end) {
				t.Fatalf("%s: it cannot be reached any more", name)
			}
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept ends with %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
