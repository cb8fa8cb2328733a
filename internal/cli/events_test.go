package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/vm"
)

func TestEvents(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "web  boot …\n", "events")
	mustRun(t, env, "vm", "stop", "web")
	s.wait(t, "web  stopped\n")
	mustRun(t, env, "vm", "delete", "web")
	s.wait(t, "  web  gone\n")
	cmd.Process.Signal(syscall.SIGINT)
	wantExit(t, cmd, 130)
	if lines := strings.Split(strings.TrimSpace(s.String()), "\n"); len(lines) != 3 {
		t.Errorf("%q", lines)
	}
}

// A pattern holds for VMs that are made later; others are not told of.
func TestEventsOfSome(t *testing.T) {
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	mustRun(t, env, "vm", "run", "-d", "--name", "db")
	cmd, s := piped(t, env, `"stage":"boot"`, "events", "--json", "db", "ci-*")
	mustRun(t, env, "vm", "stop", "web")
	mustRun(t, env, "vm", "run", "-d", "--name", "ci-1")
	s.wait(t, `"running"`)
	mustRun(t, env, "vm", "delete", "db")
	s.wait(t, `"gone"`)
	cmd.Process.Signal(syscall.SIGTERM)
	wantExit(t, cmd, 143)
	var got []string
	for line := range strings.Lines(s.String()) {
		var e vm.Event
		check(t, json.Unmarshal([]byte(line), &e))
		got = append(got, e.Name+" "+e.Kind+after(" ", string(e.State)))
		if e.VM == "" || e.Time.IsZero() {
			t.Errorf("%s", line)
		}
	}
	if all := strings.Join(got, ", "); all != "db stage, ci-1 state starting, ci-1 state running, db gone" && all != "db stage, ci-1 state running, db gone" {
		t.Errorf("%s", all)
	}
}

// The daemon's end, and a reader's, end it.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	_, env := sandbox(t)
	mustRun(t, env, "vm", "run", "-d", "--name", "web")
	cmd, s := piped(t, env, "boot …", "events", "web")
	mustRun(t, env, "daemon", "stop")
	s.wait(t, "the daemon went away while following events")
	wantExit(t, cmd, 125)
}

func TestEventWords(t *testing.T) {
	for _, c := range []struct {
		e    vm.Event
		want string
	}{
		{vm.Event{Kind: "state", State: vm.StateStopped, Text: "the guest panicked"}, "stopped: the guest panicked"},
		{vm.Event{Kind: "stage", Stage: "boot", Status: "begin"}, "boot …"},
		{vm.Event{Kind: "stage", Stage: "boot", Status: "end", ElapsedMs: 2740}, "boot 2.7s"},
		{vm.Event{Kind: "stage", Stage: "boot", Status: "failed", Text: "no KVM"}, "boot failed: no KVM"},
		{vm.Event{Kind: "note", Text: "a word"}, "note: a word"},
		{vm.Event{Kind: "gone"}, "gone"},
	} {
		if got := eventWords(c.e); got != c.want {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
	}
}

// What a guest has to say must not steer the terminal.
func TestEventsAreHarmless(t *testing.T) {
	var b bytes.Buffer
	some := follower{out: &b, patterns: []string{"x*"}}
	check(t, some.event(vm.Event{Time: time.Now(), VM: "0123456789ab", Name: "web", Kind: "gone"}))
	if b.Len() != 0 {
		t.Errorf("of another VM: %q", b.String())
	}
	check(t, some.event(vm.Event{Time: time.Now(), Kind: "note", Text: "events are missing"}))
	if !strings.HasSuffix(b.String(), "  -  note: events are missing\n") {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	f := follower{out: &b, all: true}
	check(t, f.event(vm.Event{Time: time.Now(), VM: "0123456789ab", Kind: "state", State: vm.StateStopped, Text: "\x1b[2Jevil\nweb  gone"}))
	if got := b.String(); strings.ContainsRune(got, '\x1b') || strings.Count(got, "\n") != 1 || !strings.Contains(got, "  0123456789ab  stopped: ") {
		t.Errorf("%q", got)
	}
}
