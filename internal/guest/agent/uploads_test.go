package agent

import (
	"archive/tar"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
)

// A machine that is powered off leaves no half of a file that was just copied into it: what nobody ends would stay on its disk.
func TestPowerOffEndsCopies(t *testing.T) {
	s, socket := serveAgent(t)
	r := &slow{recorder{ended: make(chan struct{})}, make(chan struct{}), make(chan struct{})}
	s.system = r
	client := clientOf(socket)
	dir := t.TempDir()

	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	put := func(body io.Reader) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://guest"+guest.PathFiles+"?path="+url.QueryEscape(dir), body)
		if err != nil {
			return 0, err.Error()
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	answered := make(chan string, 1)
	go func() {
		code, text := put(in)
		if code == http.StatusConflict {
			text = "conflict: " + text
		}
		answered <- text
	}()
	w := tar.NewWriter(out)
	must(t, w.WriteHeader(&tar.Header{Name: "half", Typeflag: tar.TypeReg, Mode: 0o644, Size: 10 << 20}))
	_, err := w.Write(make([]byte, 1<<20))
	must(t, err)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got, err := os.ReadDir(dir); err == nil && len(got) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the copy does not begin")
		}
	}

	resp, err := client.Post("http://guest"+guest.PathPowerOff, "application/json", strings.NewReader(`{"grace_ms":5000}`))
	must(t, err, resp.Body.Close())
	close(s.reaper.none) // no process is left
	select {
	case <-r.settling:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not come to its disks")
	}
	if got, err := os.ReadDir(dir); err != nil || len(got) > 0 {
		t.Errorf("when its disks are brought to rest there is %v, %v", got, err)
	}
	if text := <-answered; !strings.HasPrefix(text, "conflict: ") || !strings.Contains(text, "powered off") {
		t.Errorf("the copy's client is told %q", text)
	}
	if code, text := put(http.NoBody); code != http.StatusConflict || !strings.Contains(text, "powered off") {
		t.Errorf("another copy: %d, %q", code, text)
	}
	close(r.settled)
	<-r.ended
}
