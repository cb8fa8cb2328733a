package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// The claim the project exists for: kill the daemon at any moment, and VMs live on and nothing leaks.
func TestTheDaemonIsKilled(t *testing.T) {
	beside(t)
	b := newBox(t)
	testhost.Need(t, testhost.SSH)
	names := []string{"one", "two", "three"}
	if testhost.Alone() { // a start takes too long there
		names = names[:1]
	}
	last := names[len(names)-1]
	pids := map[string]int{}
	for _, n := range names {
		b.vm(n)
		b.ok("vm", "exec", n, "--", "sh", "-c", "echo $0 > /root/mark; sync", n)
		pids[n] = b.show(n).Handles.PID
	}
	flight := b.command("vm", "exec", "one", "--", "sh", "-c", "echo begun; sleep 1000")
	var out, errs lockedBuffer
	flight.Stdout, flight.Stderr = &out, &errs
	if err := flight.Start(); err != nil {
		t.Fatal(err)
	}
	out.until(t, "begun")
	kill9(t, b.daemonPID())
	_ = flight.Wait()
	if code := flight.ProcessState.ExitCode(); code != 125 || errs.String() == "" {
		t.Errorf("the exec in flight: exit code %d, %q; want 125 and words", code, errs.String())
	}
	// Any command starts a daemon, which adopts.
	for _, n := range names {
		if got := b.ok("vm", "exec", n, "--", "cat", "/root/mark"); got != n+"\n" {
			t.Errorf("%s: %q", n, got)
		}
		if got := b.ok("vm", "ssh", n, "--", "hostname"); got != n+"\n" {
			t.Errorf("ssh %s: %q", n, got)
		}
		if v := b.untilAdopted(n); v.Handles.PID != pids[n] || v.State != vm.StateRunning {
			t.Errorf("%s was not adopted as it was: %+v", n, v)
		}
	}
	t.Run("again, without scratch files", func(t *testing.T) {
		b := b.with(t)
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(b.show(n).VMDir, "handles.json"), []byte(`{"vm":`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		kill9(t, b.daemonPID())
		for _, n := range names {
			if v := b.untilAdopted(n); v.Handles.PID != pids[n] {
				t.Errorf("%s: %+v", n, v.Handles)
			}
			b.ok("vm", "exec", n, "--", "true")
		}
	})
	t.Run("and at once another command", func(t *testing.T) {
		b := b.with(t)
		for range len(names) + 2 {
			id, err := proc.Identify(b.daemonPID())
			if err != nil {
				t.Fatal(err)
			}
			if err := proc.Signal(id, 9); err != nil { // not waited for: its socket still takes connections for a moment
				t.Fatal(err)
			}
			b.ok("vm", "exec", last, "--", "true")
		}
	})
	t.Run("an orderly stop leaves VMs running", func(t *testing.T) {
		b := b.with(t)
		b.ok("daemon", "stop")
		b.fails(3, "", "daemon", "status")
		for _, n := range names {
			if _, err := proc.Identify(pids[n]); err != nil {
				t.Errorf("%s: %v", n, err)
			}
		}
		b.ok("vm", "exec", last, "--", "true")
	})
	t.Run("both die: demoted, started again with its disk", func(t *testing.T) {
		b := b.with(t)
		daemon := b.daemonPID()
		kill9(t, daemon)
		kill9(t, pids["one"])
		v := b.untilState("one", vm.StateStopped, time.Minute)
		if v.Runtime.LastError == "" || v.Handles.PID != 0 {
			t.Errorf("%+v", v)
		}
		b.ok("vm", "start", "one")
		if got := b.ok("vm", "exec", "one", "--", "cat", "/root/mark"); got != "one\n" {
			t.Errorf("%q", got)
		}
	})
	b.ok(append([]string{"vm", "delete"}, names...)...)
}

func TestTheVMMIsKilled(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web")
	// What a first start put into the home has to be there with the first thing of the user that is.
	const home = "cd /root && wc -c .bashrc .profile && sha256sum .bashrc .profile"
	want := b.ok("vm", "exec", "web", "--", "sh", "-c", "echo kept > /srv/x; echo mine > /root/x; sync /srv/x /root/x; "+home)
	states := b.states("web")
	pid := b.show("web").Handles.PID
	begin := time.Now()
	kill9(t, pid)
	for e := range states {
		if e.State != vm.StateStopped {
			continue
		}
		// As the daemon committed it: how soon a busy host runs another command is not its doing.
		most := 2 * time.Second
		if testhost.Alone() { // there each step of the clean-up is an emulated program
			most = 20 * time.Second
		}
		if took := e.Time.Sub(begin); took > most {
			t.Errorf("stopped %v after the kill, want %v at most", took, most)
		}
		break
	}
	v := b.show("web")
	if v.State != vm.StateStopped {
		t.Fatalf("no event told of the end: %+v", v)
	}
	if !strings.Contains(v.Runtime.LastError, "killed") {
		t.Errorf("the reason: %q", v.Runtime.LastError)
	}
	for _, path := range []string{filepath.Dir(v.Runtime.APISockPath), filepath.Join(v.VMDir, "handles.json")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	b.ok("vm", "start", "web")
	if got := b.ok("vm", "exec", "web", "--", "cat", "/srv/x", "/root/x"); got != "kept\nmine\n" {
		t.Errorf("%q", got)
	}
	if got := b.ok("vm", "exec", "web", "--", "sh", "-c", home); got != want {
		t.Errorf("the home was\n%sand is\n%s", want, got)
	}
	t.Run("ended from within", func(t *testing.T) {
		b := b.with(t)
		key := "o" // off
		if b.show("web").VMM == "firecracker" {
			key = "b" // Firecracker's machine has no power-off: its kernel would stay, without its disks. What ends it is a restart
		}
		_, _, _ = b.run(nil, "vm", "exec", "web", "--", "sh", "-c", "echo "+key+" > /proc/sysrq-trigger")
		if v := b.untilState("web", vm.StateStopped, time.Minute); v.Runtime.LastError != "" {
			t.Errorf("that is no error: %q", v.Runtime.LastError)
		}
	})
}

func TestManyClientsStartOneDaemon(t *testing.T) {
	b := newBox(t)
	_, _, _ = b.run(nil, "daemon", "stop")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if out, errs, code := b.run(nil, "vm", "list"); code != 0 {
				t.Errorf("exit code %d\n%s%s", code, out, errs)
			}
		})
	}
	wg.Wait()
	ps, err := proc.Find(func(args []string) bool { return filepath.Base(args[0]) == "bangerd" })
	if err != nil {
		t.Fatal(err)
	}
	mine := 0
	for _, p := range ps {
		env, _ := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/environ")
		if strings.Contains(string(env), "BANGER_ROOT="+b.root) {
			mine++
		}
	}
	if mine != 1 {
		t.Errorf("%d daemons serve the root", mine)
	}
}
