package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

func TestMainJob(t *testing.T) {
	beside(t)
	b := newBox(t)

	out, errs, code := b.run(nil, "vm", "run", "--name", "handles-test", "--", "cat", "/etc/hostname")
	if out != "handles-test\n" || code != 0 || !strings.Contains(errs, "handles-test") {
		t.Fatalf("stdout %q, stderr %q, exit code %d", out, errs, code)
	}
	t.Run("the VM stays", func(t *testing.T) {
		b := b.with(t)
		var list []vm.VMRecord
		if err := json.Unmarshal([]byte(b.ok("vm", "list", "--json")), &list); err != nil || len(list) != 1 || list[0].State != vm.StateRunning {
			t.Fatalf("%+v, %v", list, err)
		}
		v := b.show("handles-test")
		if v.Handles.PID == 0 || !v.Observed.Alive || !v.Observed.Ready || v.VMDir == "" {
			t.Errorf("%+v", v)
		}
		if _, err := os.Stat(filepath.Join(v.VMDir, "handles.json")); err != nil {
			t.Error(err)
		}
	})
	t.Run("stop and start keep both disks", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "exec", "handles-test", "--", "sh", "-c", "echo system > /srv/x; echo work > /root/x")
		b.ok("vm", "stop", "handles-test")
		b.fails(125, "not running", "vm", "exec", "handles-test", "--", "true")
		if v := b.show("handles-test"); v.State != vm.StateStopped || v.Runtime.LastError != "" || v.Handles.PID != 0 {
			t.Errorf("stopped: %+v", v)
		}
		b.ok("vm", "start", "handles-test")
		if got := b.ok("vm", "exec", "handles-test", "--", "cat", "/srv/x", "/root/x"); got != "system\nwork\n" {
			t.Errorf("after the restart: %q", got)
		}
	})
	t.Run("kill", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "kill", "handles-test")
		if v := b.show("handles-test"); v.State != vm.StateStopped {
			t.Errorf("killed: %+v", v)
		}
	})
	b.ok("vm", "delete", "handles-test")
}

func TestRunAndRemove(t *testing.T) {
	beside(t)
	b := newBox(t)
	t.Run("exit code", func(t *testing.T) {
		b := b.with(t)
		out, errs, code := b.run(nil, "vm", "run", "--rm", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
		if out != "out\n" || code != 42 || !strings.Contains(errs, "err\n") {
			t.Errorf("stdout %q, stderr %q, exit code %d", out, errs, code)
		}
	})
	t.Run("stdin", func(t *testing.T) {
		b := b.with(t)
		out, _, code := b.run(strings.NewReader("hi\n"), "vm", "run", "--rm", "--", "cat")
		if out != "hi\n" || code != 0 {
			t.Errorf("stdout %q, exit code %d", out, code)
		}
	})
	t.Run("no such command", func(t *testing.T) {
		b.with(t).fails(127, "no-such-command", "vm", "run", "--rm", "--", "no-such-command")
	})
	t.Run("nothing is left", func(t *testing.T) {
		b := b.with(t)
		if got := b.ok("vm", "list", "-q"); got != "" {
			t.Errorf("VMs are left: %q", got)
		}
	})
}

// A client that is killed leaves nothing of a --rm VM, whatever it was waiting for.
func TestKilledClientLeavesNothing(t *testing.T) {
	beside(t)
	b := newBox(t)
	for _, c := range []struct {
		name string
		wait func(t *testing.T, b *box, out *lockedBuffer)
	}{
		{"while the VM starts", func(_ *testing.T, b *box, _ *lockedBuffer) {
			b.untilListed(func(l []vm.VMRecord) bool { return len(l) == 1 && l[0].State == vm.StateStarting })
		}},
		{"in its session", func(t *testing.T, _ *box, out *lockedBuffer) { out.until(t, "begun") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.with(t)
			var out lockedBuffer
			cmd := b.command("vm", "run", "--rm", "--name", "victim", "--", "sh", "-c", "echo begun; sleep 1000")
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // also when the wait fails
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				_, _, _ = b.run(nil, "vm", "delete", "victim")
			})
			c.wait(t, b, &out)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			b.untilListed(func(l []vm.VMRecord) bool { return len(l) == 0 })
		})
	}
}

// untilListed polls the list of VMs: a boot, the wait for a session and a removal may lie between.
func (b *box) untilListed(is func([]vm.VMRecord) bool) {
	b.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var list []vm.VMRecord
		if err := json.Unmarshal([]byte(b.ok("vm", "list", "--json")), &list); err != nil {
			b.t.Fatal(err)
		}
		for _, r := range list {
			b.as(r)
		}
		if is(list) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("after three minutes the list is %+v", list)
		}
	}
}
