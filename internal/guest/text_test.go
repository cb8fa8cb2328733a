package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"banger/internal/vm"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"no user \"x\" in the guest": "no user \"x\" in the guest",
		"grün":                       "grün",
		"a\x1b[2Jb\r\nc\u202ed\x00e": "a [2Jb  c d e",
		"broken \xff utf8":           "broken   utf8",
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	long := Plain("open " + strings.Repeat("/very/long", 1000) + ": no such file")
	if len(long) > 256 || !strings.HasPrefix(long, "open /very") || !strings.HasSuffix(long, ": no such file") || !strings.Contains(long, "…") {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[2J")
	f.Add(strings.Repeat("ü", 300))
	f.Fuzz(func(t *testing.T, s string) {
		got := Plain(s)
		if len(got) > 256 || !utf8.ValidString(got) || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("%q became %q", s, got)
		}
		if again := Plain(got); again != got {
			t.Errorf("%q became %q the second time", got, again)
		}
	})
}

// What a guest says of itself, and why it refuses, is cut before anybody keeps or shows it.
func TestAnswersAreBounded(t *testing.T) {
	hostile := "\x1b]0;x\x07" + strings.Repeat("y", 100_000)
	bad := func(s string) bool { return len(s) > 256 || strings.ContainsAny(s, "\x1b\x07\n") }
	mux := http.NewServeMux()
	hello := func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Hello{Version: hostile, BootID: hostile, Configured: hostile, Hostname: hostile, Init: hostile, Ending: hostile})
	}
	mux.HandleFunc("GET "+PathHello, hello)
	mux.HandleFunc("POST "+PathConfigure, hello)
	mux.HandleFunc("POST "+PathSync, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(ErrorBody{Code: hostile, Message: hostile, Hint: hostile})
	})
	c := NewClient(fakeAgent(t, mux))
	for name, ask := range map[string]func() (Hello, error){
		"hello":     func() (Hello, error) { return c.Hello(t.Context()) },
		"waited":    func() (Hello, error) { return c.WaitHello(t.Context()) },
		"configure": func() (Hello, error) { return c.Configure(t.Context(), Configure{}) },
	} {
		h, err := ask()
		if err != nil || bad(h.Version) || bad(h.BootID) || bad(h.Configured) || bad(h.Hostname) || bad(h.Init) || bad(h.Ending) || h.Version == "" {
			t.Errorf("%s: %.300q, %v", name, fmt.Sprint(h), err)
		}
	}
	err := c.Sync(t.Context())
	if bad(err.Error()) || bad(string(vm.CodeOf(err))) || bad(vm.HintOf(err)) {
		t.Errorf("an error of %d bytes: %.300q", len(err.Error()), err)
	}
	client, server := net.Pipe()
	go func() {
		b, _ := json.Marshal(ExecExit{Code: 1, Signal: hostile[:1000], Reason: hostile[:10_000]})
		_ = NewFrameWriter(server).Write(FrameExit, b)
	}()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	exit, err := RunExec(t.Context(), client, Stdio{})
	if err != nil || bad(exit.Signal) || bad(exit.Reason) || exit.Reason == "" {
		t.Errorf("exit %.300q, %v", fmt.Sprint(exit), err)
	}
}
