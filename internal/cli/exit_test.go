package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// said returns what f prints on stderr and stdout for people.
func said(t *testing.T, f func(*app)) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	check(t, err)
	defer out.Close()
	f(&app{in: os.Stdin, out: out, err: out, signals: &signals{ch: make(chan os.Signal, 1)}})
	b, err := os.ReadFile(out.Name())
	check(t, err)
	return string(b)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hostile would clear the screen, set the window's title and forge a line of ours, in a terminal that obeyed it.
const hostile = "\x1b[2Jbad\x1b]0;title\a\r\u009b31m\u202e\xff"

// TestGuestsWordsDoNotSteerTheTerminal: what a guest or the daemon says is text, however it is told.
func TestGuestsWordsDoNotSteerTheTerminal(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(*app)
		want string
	}{
		"message": {func(a *app) { a.report(errors.New(hostile + "\nbanger: all is well")) }, "banger: [2Jbad]0;title31m\ufffd\n  banger: all is well\n"},
		"hint":    {func(a *app) { a.report(vm.Errorf(vm.CodeInvalid, "x").WithHint("one%s\ntwo", hostile)) }, "  hint: one[2Jbad]0;title31m\ufffd\n  two\n"},
		"reason": {func(a *app) {
			conn, agent := net.Pipe()
			go func() {
				b, _ := json.Marshal(guest.ExecExit{Code: 127, Reason: "no " + hostile})
				_ = guest.NewFrameWriter(agent).Write(guest.FrameExit, b)
				_, _ = io.Copy(io.Discard, agent)
			}()
			_ = a.session(context.Background(), conn, guest.ExecRequest{}, command{vm: "web"})
		}, "banger: no  [2Jbad ]0;title   31m"}, // package guest puts spaces
		"left out": {func(a *app) { a.progress(true).leftOut("dir/" + hostile) }, "banger: dir/[2Jbad]0;title31m"},
		"copy":     {func(a *app) { a.report(copyError(place{"web", "/x"}, place{"", "."}, errors.New("write "+hostile))) }, "write [2Jbad]0;title31m"},
		"show": {func(a *app) {
			_ = a.printViews([]api.VMView{{VMRecord: vm.VMRecord{Runtime: vm.VMRuntime{LastError: hostile, GuestIP: hostile}}}}, false, true)
		}, "Last error:  "},
		"problem": {func(a *app) {
			_, _ = io.WriteString(a.out, problemsText([]api.Problem{{Code: "c", Severity: "error", Text: hostile, Hint: hostile + "\nmore"}}))
		}, "error: [2Jbad"},
		"version": {func(a *app) { a.compareVersion(hostile) }, "the daemon is [2Jbad"},
	} {
		t.Run(name, func(t *testing.T) {
			got := said(t, c.say)
			if strings.ContainsAny(got, "\x1b\a\r\u009b\u202e") || !utf8.ValidString(got) || !strings.Contains(got, c.want) {
				t.Errorf("%q, want it harmless, with %q", got, c.want)
			}
		})
	}
}

// Only of our own output nobody reading any more is an end without a word; of a connection it is an error like any other.
func TestBrokenPipes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		said bool
	}{
		{&fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, 141, false},
		{vm.Errorf(vm.CodeUnavailable, "copying: %w", &net.OpError{Op: "write", Net: "unix", Err: os.NewSyscallError("write", syscall.EPIPE)}), 125, true},
	} {
		var code int
		if got := said(t, func(a *app) { code = a.exitCode(c.err) }); code != c.code || (got != "") != c.said {
			t.Errorf("%v: code %d, said %q", c.err, code, got)
		}
	}
}
