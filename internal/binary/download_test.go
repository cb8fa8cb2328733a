package binary

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

// handle serves every request by f.
func (s *site) handle(f http.HandlerFunc) { s.Config.Handler = f }

func TestDownloadFails(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		code    vm.Code
		want    string
	}{
		"server error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, vm.CodeUnavailable, "502"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("\x1f\x8b"))
		}, vm.CodeUnavailable, "EOF"},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, vm.CodeUnavailable, "EOF"},
		"to http": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusFound)
		}, vm.CodeUnavailable, "from https to http"},
		"round in circle": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, vm.CodeUnavailable, "without end"},
		"forbidden":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, vm.CodeNotFound, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, true)
			s.handle(c.handler)
			l := newLibrary(t, s)
			_, err := l.Install(t.Context(), Name, api.InstallRequest{From: s.URL + "/a.tgz?token=secret#x"}, nil)
			if vm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || vm.HintOf(err) == "" || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v (%s; hint %q), want %s with %q", err, vm.CodeOf(err), vm.HintOf(err), c.code, c.want)
			}
			if got := below(t, l.Dir); len(got) != 0 {
				t.Errorf("left %q", got)
			}
		})
	}
	s := newSite(t, true)
	l := newLibrary(t, s)
	s.Close()
	if _, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil); vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(vm.HintOf(err), "HTTPS_PROXY") {
		t.Errorf("nobody there: %v, hint %q", err, vm.HintOf(err))
	}
}

// slow answers with a beginning and then nothing, until the client has gone.
func slow(begun, gone chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "\x1f\x8b")
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}
}

func TestInstallEnds(t *testing.T) {
	for name, end := range map[string]func(l *Library, cancel func()){
		"cancelled": func(_ *Library, cancel func()) { cancel() },
		"closed":    func(l *Library, _ func()) { l.Close() },
	} {
		begun, gone := make(chan struct{}, 1), make(chan struct{}, 1)
		s := newSite(t, true)
		s.handle(slow(begun, gone))
		l := newLibrary(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := l.Install(ctx, Name, api.InstallRequest{}, nil)
			failed <- err
		}()
		<-begun
		end(l, cancel)
		if err := <-failed; vm.CodeOf(err) != vm.CodeCanceled {
			t.Errorf("%s: %v", name, err)
		}
		<-gone
		l.Close() // waits until it has cleaned up
		if got := below(t, l.Dir); len(got) != 0 {
			t.Errorf("%s: left %q", name, got)
		}
		if _, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil); vm.CodeOf(err) != vm.CodeCanceled {
			t.Errorf("%s: after the end: %v", name, err)
		}
		cancel()
	}
}

func TestDownloadStandsStill(t *testing.T) {
	s := newSite(t, true)
	s.handle(slow(make(chan struct{}, 1), make(chan struct{}, 1))) // room for one request: there must be no second
	l := newLibrary(t, s)
	l.stall = 50 * time.Millisecond
	_, err := l.Install(t.Context(), Name, api.InstallRequest{}, nil)
	if vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Errorf("%v", err)
	}
}
