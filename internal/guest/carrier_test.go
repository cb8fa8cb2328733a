package guest

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A guest that switches to what nobody asked for gets its connection closed: a proxy only tells of the error, and would leave it
// open for as long as the daemon lives.
func TestSwitchedToSomethingElse(t *testing.T) {
	closed := make(chan struct{}, 1)
	agent := NewClient(fakeAgent(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"+r.Header.Get("Give")+"\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		closed <- struct{}{}
	})))
	target, _ := url.Parse("http://guest")
	proxy := &httputil.ReverseProxy{Transport: agent.Transport(), Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	daemon := fakeAgent(t, proxy)
	for _, tt := range []struct {
		name, asked, given string
		length             int64
	}{
		{"another", UpgradeExec, "Upgrade: other", 2},
		{"none", UpgradeExec, "", 2},
		{"a body of unknown length", UpgradeExec, "Upgrade: other", -1},
		{"not asked", "", "Upgrade: other", 2},
		{"not asked, and none", "", "", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := daemon(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://daemon/", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = tt.length
			req.Header.Set("Give", tt.given)
			if tt.asked != "" {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", tt.asked)
			}
			if err := req.Write(conn); err != nil {
				t.Fatal(err)
			}
			if _, answer, err := readAnswer(conn, req); err != nil || answer.StatusCode != http.StatusBadGateway {
				t.Errorf("answered %v, %v", answer, err)
			}
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Error("its connection is still open")
			}
		})
	}
}
