package agent

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func TestHello(t *testing.T) {
	s, socket := serveAgent(t)
	s.conf.Store(&guest.Configure{ID: "0123456789ab"})
	s.init = "/sbin/init"
	resp, err := clientOf(socket).Get("http://guest" + guest.PathHello)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var h guest.Hello
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if h.Protocol != guest.Protocol || h.Version == "" || len(h.BootID) != 36 || h.Configured != "0123456789ab" ||
		h.Hostname != host || h.Uptime <= 0 || h.Init != "/sbin/init" {
		t.Errorf("got %+v", h)
	}
}

// What is wrong is refused before anything is done, with a code and a sentence.
func TestRefusals(t *testing.T) {
	_, socket := serveAgent(t)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     vm.Code
		upgrade, says            string
	}{
		{"configure without an id", "POST", guest.PathConfigure, `{"hostname":"web"}`, 400, vm.CodeInvalid, "", ""},
		{"bad host name", "POST", guest.PathConfigure, `{"id":"x","hostname":"a b"}`, 400, vm.CodeInvalid, "", ""},
		{"bad network", "POST", guest.PathConfigure, `{"id":"x","hostname":"web","network":{"address":"10.0.0.1"}}`, 400, vm.CodeInvalid, "", ""},
		{"no JSON", "POST", guest.PathExec, `{`, 400, vm.CodeInvalid, guest.UpgradeExec, "JSON"},
		{"exec without a command", "POST", guest.PathExec, `{}`, 400, vm.CodeInvalid, guest.UpgradeExec, "without a command"},
		{"exec without an upgrade", "POST", guest.PathExec, `{"argv":["true"]}`, 400, vm.CodeInvalid, "", guest.UpgradeExec},
		{"exec of unknown length", "POST", guest.PathExec, "", 400, vm.CodeInvalid, guest.UpgradeExec, "length"},
		{"exec of endless length", "POST", guest.PathExec, strings.Repeat(" ", maxBody+1), 400, vm.CodeInvalid, guest.UpgradeExec, "length"},
		{"bad power-off", "POST", guest.PathPowerOff, `"now"`, 400, vm.CodeInvalid, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "http://guest"+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.upgrade != "" {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", c.upgrade)
			}
			if c.body == "" {
				req.Body, req.ContentLength = io.NopCloser(strings.NewReader("{}")), -1
			}
			resp, err := clientOf(socket).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			var e guest.ErrorBody
			if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || e.Code != string(c.code) || e.Message == "" || !strings.Contains(e.Message, c.says) {
				t.Errorf("%s: %+v", resp.Status, e)
			}
		})
	}
}

// recorder is a machine that only notes what is done to it.
type recorder struct {
	mu    sync.Mutex
	did   []string
	asked bool
	ended chan struct{}
}

func (r *recorder) note(s string) { r.mu.Lock(); defer r.mu.Unlock(); r.did = append(r.did, s) }

func (r *recorder) signalAll(s syscall.Signal) { r.note(unix.SignalName(s)) }
func (r *recorder) askInit() bool              { r.note("ask"); return r.asked }
func (r *recorder) settleDisks()               { r.note("settle") }
func (r *recorder) end()                       { r.note("end"); close(r.ended) }

func TestPowerOff(t *testing.T) {
	for _, c := range []struct {
		name  string
		asked bool
		want  []string
	}{
		{"init is ours", false, []string{"ask", "SIGTERM", "SIGHUP", "SIGCONT", "SIGKILL", "settle", "end"}},
		{"init is the image's", true, []string{"ask", "SIGKILL", "settle", "end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, socket := serveAgent(t)
			r := &recorder{asked: c.asked, ended: make(chan struct{})}
			s.system = r
			close(s.reaper.none) // as if there were no processes
			for range 2 {        // the second does nothing
				resp, err := clientOf(socket).Post("http://guest"+guest.PathPowerOff, "application/json", strings.NewReader(`{"grace_ms":50}`))
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusNoContent {
					t.Errorf("answered %s", resp.Status)
				}
			}
			select {
			case <-r.ended:
			case <-time.After(5 * time.Second):
				t.Fatal("the machine does not end")
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if !slices.Equal(r.did, c.want) {
				t.Errorf("did %v, want %v", r.did, c.want)
			}
		})
	}
}

func TestEdit(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "etc", "resolv.conf")
	set := func(text string) {
		t.Helper()
		if err := edit(file, func(string) string { return text }); err != nil {
			t.Fatal(err)
		}
		st, err := os.Lstat(file)
		if err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		if b, _ := os.ReadFile(file); string(b) != text {
			t.Errorf("holds %q, want %q", b, text)
		}
	}
	set("in a directory that was missing\n")
	before, _ := os.Stat(file)
	set("in a directory that was missing\n")
	if after, _ := os.Stat(file); !os.SameFile(before, after) {
		t.Error("the same text was written again")
	}
	set("other\n")
	for _, target := range []string{"../run/dangling", "elsewhere"} {
		elsewhere := filepath.Join(dir, "etc", "elsewhere")
		if err := os.WriteFile(elsewhere, []byte("the resolver's own\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
		set("the resolver's own\n") // even when it says the same
		if b, _ := os.ReadFile(elsewhere); string(b) != "the resolver's own\n" {
			t.Errorf("wrote through the link: %q", b)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "etc", "*.banger")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// While the work disk is not there yet, the guest says hello, and what could see its home waits.
func TestNobodySeesTheHomeBeforeItIsThere(t *testing.T) {
	s, socket := serveAgent(t)
	home := make(chan struct{})
	s.home = home
	mounted := filepath.Join(t.TempDir(), "mounted")
	codes := make(chan int, 1)
	go func() { codes <- run(t, socket, sh("test -e "+mounted)).exit.Code }()
	for range 20 { // time for a command that does not wait
		resp, err := clientOf(socket).Get("http://guest" + guest.PathHello)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	if err := os.WriteFile(mounted, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	close(home)
	if code := <-codes; code != 0 {
		t.Errorf("the command ended with %d: it ran before the home was there", code)
	}
}
