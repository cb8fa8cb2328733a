package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/paths"
	"banger/internal/vm"
)

const daemonLog = `why a daemon could not start 0123456789ab
{"time":"2026-01-02T03:04:05.123Z","level":"INFO","msg":"serving","pid":1}
{"time":"2026-01-02T03:04:06Z","level":"INFO","msg":"looked for the VMM","vm":"web","id":"0123456789ab","alive":true,"pid":17}
{"time":"2026-01-02T03:04:07Z","level":"WARN","msg":"start failed","vm":"db","id":"ba9876543210","error":"not 0123456789ab"}
{"time":"2026-01-02T03:04:08Z","level":"WARN","msg":"start failed","vm":"web","id":"0123456789ab","error":"a \"b\"\nc","state":"stopped"}
`

const (
	lookedLine = "2026-01-02T03:04:06Z INFO  looked for the VMM alive=true pid=17\n"
	failedLine = "2026-01-02T03:04:08Z WARN  start failed error=\"a \\\"b\\\"\\nc\" state=stopped\n"
)

func TestNoted(t *testing.T) {
	for _, tt := range []struct {
		since string
		tail  int
		want  string
	}{
		{"2000-01-01T00:00:00Z", -1, lookedLine + failedLine},
		{"2026-01-02T03:04:07Z", -1, failedLine},
		{"2026-01-02T03:04:09Z", -1, ""},
		{"2000-01-01T00:00:00Z", 1, failedLine},
		{"2000-01-01T00:00:00Z", 0, ""},
	} {
		since, err := time.Parse(time.RFC3339, tt.since)
		if err != nil {
			t.Fatal(err)
		}
		var whole strings.Builder
		n := &noted{w: &whole, id: "0123456789ab", since: since, tail: tt.tail}
		if k, err := n.Write([]byte(daemonLog)); k != len(daemonLog) || err != nil || whole.String() != tt.want {
			t.Errorf("since %s, tail %d: %q, want %q (%v)", tt.since, tt.tail, whole.String(), tt.want, err)
		}
		if tt.tail >= 0 {
			continue
		}
		var bytewise strings.Builder
		n = &noted{w: &bytewise, id: "0123456789ab", since: since, tail: -1}
		for i := range daemonLog {
			_, _ = n.Write([]byte(daemonLog[i : i+1]))
		}
		if bytewise.String() != tt.want {
			t.Errorf("byte by byte, since %s: %q, want %q", tt.since, bytewise.String(), tt.want)
		}
	}
}

// FuzzNoted: whatever is in the log, what is written is whole lines, and not more of them.
func FuzzNoted(f *testing.F) {
	f.Add([]byte(daemonLog))
	f.Add([]byte(`{"id":"0123456789ab","time":"2026-01-02T03:04:06Z","a":{"b":[1,"0123456789ab"]},"` + "\x1b" + `":1}` + "\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		var out strings.Builder
		n := &noted{w: &out, id: "0123456789ab", tail: -1}
		_, _ = n.Write(log)
		if s := out.String(); s != "" && !strings.HasSuffix(s, "\n") || strings.Count(s, "\n") > strings.Count(string(log), "\n") {
			t.Errorf("%q of %q", s, log)
		}
	})
}

func TestTheDaemonsLogOfAVM(t *testing.T) {
	c, _, socket := serve(t)
	r, err := c.Create(t.Context(), api.CreateRequest{Name: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := strings.ReplaceAll(daemonLog, "0123456789ab", string(r.ID))
	if err := os.WriteFile(paths.Under(filepath.Dir(filepath.Dir(socket))).DaemonLog(), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.Logs(t.Context(), "web", client.LogQuery{Daemon: true, Tail: 1})
	if err != nil || ends(t, got) != failedLine {
		t.Errorf("%v", err)
	}
	if _, err := c.Logs(t.Context(), "web", client.LogQuery{Tail: -1, Since: time.Now()}); vm.CodeOf(err) != vm.CodeInvalid {
		t.Errorf("a console since: %v", err)
	}
}
