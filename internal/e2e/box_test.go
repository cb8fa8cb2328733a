package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/host/proc"
	"banger/internal/paths"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// box is one BANGER_ROOT with kernel and image, and the built CLI.
type box struct {
	t      testing.TB
	root   string
	banger string
}

// beside has a test run while others do, as many as there are processors: a guest under emulation keeps one busy, and who waits
// for it none. Each has a root of its own. In the lab whatever is on the host is the test's, and there is one at a time.
func beside(t *testing.T) {
	t.Helper()
	if !testhost.Alone() {
		t.Parallel()
	}
}

// newBox also checks, at the end, that nothing of the root is left: no VM, no process, no socket.
func newBox(t testing.TB) *box {
	t.Helper()
	testhost.Need(t, testhost.Real, testhost.QEMU)
	nothingIsLeft(t)
	return anotherBox(t)
}

// anotherBox is a root beside one of newBox, which looks at what is left when both are gone.
func anotherBox(t testing.TB) *box {
	t.Helper()
	testhost.Leaks(t)
	root, banger := testhost.SeedRoot(t)
	b := &box{t, root, banger}
	t.Cleanup(func() {
		for _, dir := range []string{"vms", "run"} {
			entries, _ := os.ReadDir(filepath.Join(root, dir))
			for _, e := range entries {
				if !strings.HasSuffix(e.Name(), ".lock") {
					t.Errorf("left in %s: %s", dir, e.Name())
				}
			}
		}
		ps, err := proc.Find(func(args []string) bool { return strings.Contains(strings.Join(args, " "), root+"/") })
		if err != nil || len(ps) > 0 {
			t.Errorf("processes of the root are left: %v %v", ps, err)
		}
	})
	t.Cleanup(func() { _, _, _ = b.run(nil, "daemon", "stop") })
	b.expectDrivers()
	return b
}

// with is the same box for a subtest.
func (b *box) with(t *testing.T) *box { return &box{t, b.root, b.banger} }

// patience is how long one command may take: no hang may hold up the other tests.
const patience = 5 * time.Minute

// command is one that the test starts itself. It is killed with the test, or when it takes too long.
func (b *box) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, b.banger, args...)
	cmd.Env = b.env()
	return cmd
}

func (b *box) env() []string { return append(os.Environ(), "BANGER_ROOT="+b.root, "NO_COLOR=1") }

// run runs one banger command to its end. It may be called by any goroutine of the test.
func (b *box) run(stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience) // not the test's: clean-ups run commands too
	defer cancel()
	cmd := exec.CommandContext(ctx, b.banger, args...)
	cmd.Env = b.env()
	cmd.WaitDelay = 5 * time.Second // for a child that holds the output open
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		b.t.Errorf("banger %v: no end after %v; %d bytes of output\n%s", args, patience, out.Len(), errs.String())
	case err != nil && !errors.As(err, &exit):
		b.t.Errorf("banger %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ok runs a command that must succeed, and returns its output.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	out, errs, code := b.run(nil, args...)
	if code != 0 && testhost.Alone() && testhost.LostGuest(errs) {
		b.t.Logf("banger %v: once more, since the emulated KVM lost the guest: %s", args, errs)
		if i := slices.Index(args, "--name"); i >= 0 && args[1] == "run" {
			_, _, _ = b.run(nil, "vm", "delete", args[i+1])
		}
		out, errs, code = b.run(nil, args...)
	}
	if code != 0 {
		b.t.Fatalf("banger %v: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

// fails runs a command that must fail with this code and say these words on stderr.
func (b *box) fails(code int, words string, args ...string) {
	b.t.Helper()
	out, errs, got := b.run(nil, args...)
	if got != code || !strings.Contains(errs, words) {
		b.t.Errorf("banger %v: exit code %d, want %d, with %q\n%s%s", args, got, code, words, out, errs)
	}
}

// vm starts a detached VM that is deleted with the test.
func (b *box) vm(name string, flags ...string) {
	b.t.Helper()
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.tell(name)
		}
		_, _, _ = b.run(nil, "vm", "delete", name)
	})
	if got := b.ok(append([]string{"vm", "run", "--name", name, "-d"}, flags...)...); got != name+"\n" {
		b.t.Fatalf("run -d printed %q", got)
	}
}

// tell logs what a failed test's VM and its daemon have last said.
func (b *box) tell(name string) {
	view, errs, _ := b.run(nil, "vm", "show", name, "--json")
	b.t.Logf("VM %s at the test's end:\n%s%s", name, view, errs)
	logs := []string{paths.Under(b.root).DaemonLog()}
	var v api.VMView
	if json.Unmarshal([]byte(view), &v) == nil && v.Runtime.VMDir != "" {
		logs = append(logs, filepath.Join(v.Runtime.VMDir, "vmm.log"), v.Runtime.LogPath)
	}
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		b.t.Logf("the last of %s:\n%s", path, text[max(0, len(text)-2000):])
	}
}

func (b *box) show(name string) api.VMView {
	b.t.Helper()
	var v api.VMView
	if err := json.Unmarshal([]byte(b.ok("vm", "show", name, "--json")), &v); err != nil {
		b.t.Fatal(err)
	}
	b.as(v.VMRecord)
	return v
}

func (b *box) daemonPID() int {
	b.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(b.ok("daemon", "status", "--json")), &s); err != nil {
		b.t.Fatal(err)
	}
	return s.PID
}

// kill9 kills a process and waits until it is gone.
func kill9(t testing.TB, pid int) {
	t.Helper()
	id, err := proc.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Signal(id, 9); err != nil {
		t.Fatal(err)
	}
	if err := proc.Wait(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// until polls the CLI, as a user would, until the VM is as it should be.
func (b *box) until(name, what string, within time.Duration, is func(api.VMView) bool) api.VMView {
	b.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		v := b.show(name)
		if is(v) {
			return v
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s is not %s after %v: %+v", name, what, within, v)
		}
	}
}

func (b *box) untilState(name string, want vm.State, within time.Duration) api.VMView {
	b.t.Helper()
	return b.until(name, string(want), within, func(v api.VMView) bool { return v.State == want })
}

// untilAdopted waits for the daemon's first look at a VM: it answers before that when the look takes long.
func (b *box) untilAdopted(name string) api.VMView {
	b.t.Helper()
	return b.until(name, "adopted", time.Minute, func(v api.VMView) bool { return v.Handles.PID != 0 && v.Observed.Ready })
}

// states follows the VM's states from now on: what happens after the call is not missed.
func (b *box) states(name string) <-chan vm.Event {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	socket := paths.Under(b.root).Socket()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://banger"+api.PathEvents+"?vm="+name, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := c.Do(req) // answered once it is subscribed
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("follow events: %v, %v", resp, err)
	}
	events := make(chan vm.Event, 64)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		for d := json.NewDecoder(resp.Body); ; {
			var e vm.Event
			if d.Decode(&e) != nil {
				return
			}
			if e.Kind == "state" {
				events <- e
			}
		}
	}()
	return events
}
