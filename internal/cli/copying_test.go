package cli

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/api/client"
	"banger/internal/guest"
	"banger/internal/vm"
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

// A copy that is cut off on its way out of a VM says that, not that a file here could not be written.
func TestACopyThatIsCutOffOnItsWayOut(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	check(t, err)
	daemon := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("path") == "" {
			return // a greeting
		}
		b, err := json.Marshal(guest.PathStat{Name: "f", Size: 1 << 20, Mode: 0o644})
		check(t, err)
		w.Header().Set(guest.StatHeader, base64.StdEncoding.EncodeToString(b))
		if r.Method == http.MethodHead {
			return
		}
		tw := tar.NewWriter(w)
		check(t, tw.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 1 << 20, Mode: 0o644}))
		_, err = tw.Write(make([]byte, 64<<10))
		check(t, err)
		panic(http.ErrAbortHandler)
	})}}
	daemon.Start()
	t.Cleanup(daemon.Close)
	c := client.New(socket)
	t.Cleanup(c.Close)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	check(t, err)
	t.Cleanup(func() { _ = null.Close() })
	for _, dst := range []string{filepath.Join(dir, "out"), "-"} {
		a := &app{err: os.Stderr, out: null}
		err := copying{app: a, c: c, p: a.progress(true)}.copyOut(t.Context(), place{"web", "/f"}, place{path: dst})
		if err == nil || !strings.HasPrefix(err.Error(), "it was cut off: ") || !strings.Contains(vm.HintOf(err), "banger vm show web") {
			t.Errorf("to %s: %v, hint %q", dst, err, vm.HintOf(err))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
}
