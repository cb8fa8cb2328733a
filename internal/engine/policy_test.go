package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/host/logfile"
	"banger/internal/host/proc"
	"banger/internal/plan"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// runs makes a VM that runs, with a restart policy.
func (d *daemon) runs(name, policy string) vm.VMRecord {
	d.t.Helper()
	r, err := d.Create(d.t.Context(), api.CreateRequest{Name: name, Start: true, Restart: policy}, nil)
	must(d.t, err)
	r, err = d.Watch().Started(d.t.Context(), r.ID, nil)
	must(d.t, err)
	return r
}

func (w *world) crash(id vm.ID) proc.Identity {
	w.t.Helper()
	p, ok := w.host.ProcessOf(id)
	if !ok {
		w.t.Fatal("there is no process")
	}
	must(w.t, w.host.Signal(p, unix.SIGKILL))
	return p
}

func restarted(n int) func(vm.VMRecord) bool {
	return func(r vm.VMRecord) bool { return r.Runtime.State == vm.StateRunning && r.Runtime.Restarts == n }
}

func atRest(r vm.VMRecord) bool {
	return r.Want == vm.WantStopped && (r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError)
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	const panicked = "[    9.9] Kernel panic - not syncing: Attempted to kill init!\n[    9.9] Rebooting in 1 seconds..\n"
	for _, tt := range []struct {
		policy, how, console string
		again                bool
		why                  string // of the end, in the record
	}{
		{"no", "signal: killed", "", false, "signal: killed"},
		{"on-failure", "signal: killed", "", true, ""},
		{"on-failure", "exit status 1", "", true, ""},
		{"on-failure", "exit status 0", "[    9.9] reboot: Power down\n", false, ""},
		{"on-failure", "exit status 0", panicked, true, ""},
		{"no", "exit status 0", panicked, false, "kernel panicked"},
		{"on-failure", "exit status 0", "[    9.9] reboot: Restarting system\n[    9.9] reboot: machine restart\n", false, ""},
		{"on-failure", "exit status 0", "login: [    9.9] reboot: Power down\n", false, ""},
		{"on-failure", "exit status 0", "[    9.9] sysrq: Resetting\n", false, ""},
		{"on-failure", "exit status 0", "[    9.9] reboot: Restarting system\nwritten by another processor\n", false, ""},
		{"on-failure", "exit status 0", "", true, ""}, // a triple fault ends a VMM as a restart does
		{"no", "exit status 0", "", false, "without powering off or rebooting"},
		{"no", "exit status 0", "a program says reboot: soon\n", false, "without powering off or rebooting"},
		{"always", "exit status 0", "", true, ""},
		{"always", "signal: killed", "", true, ""},
	} {
		t.Run(tt.policy+", "+tt.how+" "+tt.why, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.runs("web", tt.policy)
			before, _ := w.host.ProcessOf(r.ID)
			appendTo(t, r.Runtime.LogPath, tt.console)
			must(t, w.host.Exit(before, tt.how))
			if !tt.again {
				r = d.until(r.ID, "its end", atRest)
				if r.Runtime.State != vm.StateStopped || !strings.Contains(r.Runtime.LastError, tt.why) || tt.why == "" && r.Runtime.LastError != "" {
					t.Errorf("%+v", r.Runtime)
				}
				return
			}
			r = d.until(r.ID, "a restart", restarted(1))
			if p, ok := w.host.ProcessOf(r.ID); !ok || p == before || r.Runtime.LastError != "" || !r.Runtime.RestartAt.IsZero() {
				t.Errorf("process %v, before %v; %+v", p, before, r.Runtime)
			}
		})
	}
}

// A guest's farewell counts where the console was put aside just then, to keep it small; not that of an earlier run. Without
// the console nothing speaks for a crash.
func TestAnEndWhoseWordsAreElsewhere(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		edit  func(t *testing.T, console string)
		again bool
	}{
		"put aside": {func(t *testing.T, console string) {
			must(t, os.WriteFile(logfile.Old(console), []byte("much\n[    9.9] reboot: Power down\n"), 0o600))
			must(t, os.Truncate(console, 0))
		}, false},
		"of an earlier run": {func(t *testing.T, console string) {
			must(t, os.WriteFile(logfile.Old(console), []byte("[    9.9] reboot: Power down\n"), 0o600))
			must(t, os.Chtimes(logfile.Old(console), time.Time{}, time.Now().Add(-time.Hour)))
		}, true},
		"removed": {func(t *testing.T, console string) { must(t, os.Remove(console)) }, false},
		// What a QEMU says that was sent SIGTERM: by somebody, or by the init of a host that goes down.
		"told to end": {func(t *testing.T, console string) {
			appendTo(t, filepath.Join(filepath.Dir(console), vmmLog), "qemu-system-x86_64: terminating on signal 15 from pid 1234 (kill)\n")
		}, true},
		"told to end by init": {func(t *testing.T, console string) {
			appendTo(t, filepath.Join(filepath.Dir(console), vmmLog), "qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)\n")
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.runs("web", "on-failure")
			p, _ := w.host.ProcessOf(r.ID)
			tt.edit(t, r.Runtime.LogPath)
			must(t, w.host.Exit(p, "exit status 0"))
			if tt.again {
				d.until(r.ID, "a restart", restarted(1))
			} else if r = d.until(r.ID, "its end", atRest); r.Runtime.LastError != "" {
				t.Errorf("%+v", r.Runtime)
			}
		})
	}
}

// Who needs the guest of a VM whose machine has just crashed waits for the restart that is due, or is told that there is none.
func TestAgentAfterACrash(t *testing.T) {
	for _, policy := range []string{"always", "no"} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.runs("web", policy)
			p, _ := w.host.ProcessOf(r.ID)
			must(t, w.host.Exit(p, "signal: killed")) // nothing of it is left when this returns
			c, err := d.Agent(t.Context(), "web")
			if policy == "no" {
				if vm.CodeOf(err) != vm.CodeNotRunning || !strings.Contains(err.Error(), "its VMM ended") {
					t.Errorf("%v", err)
				}
				return
			}
			must(t, err)
			if _, err := c.Hello(t.Context()); err != nil {
				t.Errorf("it was given a guest that is gone: %v", err)
			}
		})
	}
}

// What broke off since the machine ended meanwhile says so, and not which of its sockets is gone.
func TestUnreached(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.faults.detaching, w.faults.mayDetach = make(chan struct{}), make(chan struct{})
	why := errors.New("dial unix agent.sock: no such file or directory")
	for policy, want := range map[string]string{"always": "may start it again", "no": "it is stopped now"} {
		name := "vm-" + policy
		r := d.runs(name, policy)
		if err := d.Unreached(t.Context(), name, why); vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), "agent.sock") {
			t.Errorf("it runs: %v", err)
		}
		w.crash(r.ID)
		<-w.faults.detaching
		err := d.Unreached(t.Context(), name, why)
		if vm.CodeOf(err) != vm.CodeNotRunning || strings.Contains(err.Error(), "agent.sock") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", policy, err)
		}
		w.faults.mayDetach <- struct{}{}
	}
	if err := d.Unreached(t.Context(), "none", why); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of none: %v", err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, errors.Join(err, f.Close()))
}

// failing has each launch from the second on fail, and counts them.
func (w *world) failing() (launches *atomic.Int32) {
	launches = new(atomic.Int32)
	w.host.Rule(fake.Rules{Launch: func(vmm.Config) error {
		if launches.Add(1) == 1 {
			return nil
		}
		return errors.New("the moon is in the wrong place")
	}})
	return launches
}

func TestRestartsAreBounded(t *testing.T) {
	w := newWorld(t)
	launches := w.failing()
	d := w.start()
	r := d.runs("web", "on-failure:3")
	w.crash(r.ID)
	r = d.until(r.ID, "its end", atRest)
	if n := launches.Load(); n != 4 || r.Runtime.State != vm.StateError || !strings.Contains(r.Runtime.LastError, "moon") || !strings.Contains(r.Runtime.LastError, "3 times in a row") {
		t.Errorf("%d launches; %+v", n, r.Runtime)
	}
	if r.Runtime.Restarts != 0 || !r.Runtime.RestartAt.IsZero() {
		t.Errorf("something is left to do: %+v", r.Runtime)
	}
}

// A first start that fails is told to who asked for it, whatever the policy.
func TestAFirstStartIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	w.failing().Store(1)
	d := w.start()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true, Restart: "always"}, nil)
	must(t, err)
	if _, err := d.Watch().Started(t.Context(), r.ID, nil); err == nil || !strings.Contains(err.Error(), "moon") {
		t.Errorf("%v", err)
	}
	if r, err := d.Store.VM(t.Context(), r.ID); err != nil || !atRest(r) {
		t.Errorf("%+v, %v", r, err)
	}
}

// What a user asks for wins over a restart that is to come.
func TestRestartGivesWay(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(d *daemon, ref string) error{
		"stop":   func(d *daemon, ref string) error { _, err := d.Stop(d.t.Context(), ref, false, 0); return err },
		"kill":   func(d *daemon, ref string) error { _, err := d.Stop(d.t.Context(), ref, true, 0); return err },
		"delete": func(d *daemon, ref string) error { _, err := d.Delete(d.t.Context(), ref); return err },
		"set": func(d *daemon, ref string) error {
			_, _, err := d.Set(d.t.Context(), ref, api.SetRequest{Restart: "no"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			launches := w.failing()
			d := w.start()
			r := d.runs("web", "always")
			w.crash(r.ID)
			r = d.until(r.ID, "a second restart to come", func(r vm.VMRecord) bool { return r.Runtime.Restarts == 2 && plan.Pending(r) })
			if !strings.Contains(r.Runtime.LastError, "moon") || r.Want != vm.WantRunning {
				t.Errorf("%+v", r)
			}
			must(t, ask(d, "web"))
			if name == "delete" {
				d.untilGone(r.ID)
				w.nothingLeft()
			} else if r = d.until(r.ID, "its end", atRest); r.Runtime.Restarts != 0 || !r.Runtime.RestartAt.IsZero() {
				t.Errorf("%+v", r.Runtime)
			}
			n := launches.Load()
			time.Sleep(2 * plan.RestartBackoff(2))
			if now := launches.Load(); now != n {
				t.Errorf("%d launches after the end", now-n)
			}
		})
	}
}

// A user's start does not wait for the restart's time, and begins the count anew.
func TestStartOfOneThatWaits(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.runs("web", "always")
	w.crash(r.ID)
	r = d.until(r.ID, "a restart to come", plan.Pending)
	_, err := d.Store.Commit(t.Context(), r.ID, r.Generation, func(r *vm.VMRecord) {
		r.Runtime.Restarts, r.Runtime.RestartAt = 12, time.Now().Add(plan.RestartBackoff(12))
	})
	must(t, err)
	if _, err := d.Agent(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || !strings.Contains(err.Error(), "waits for its restart") {
		t.Errorf("something for its guest: %v", err)
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	d.until(r.ID, "a start", restarted(0))
}

func TestRestartAfterADaemon(t *testing.T) {
	for _, tt := range []struct {
		name, policy string
		meanwhile    func(w *world, r vm.VMRecord) // no daemon runs
		stopped      bool                          // by its user, before
		again        bool
	}{
		{"on-failure, it was killed", "on-failure", func(w *world, r vm.VMRecord) { w.crash(r.ID) }, false, true},
		{"on-failure, its guest powered off", "on-failure", func(w *world, r vm.VMRecord) {
			appendTo(w.t, r.Runtime.LogPath, "[    9.9] reboot: Restarting system\n[    9.9] reboot: machine restart\n")
			w.crash(r.ID)
		}, false, false},
		{"on-failure, host reboot", "on-failure", func(w *world, _ vm.VMRecord) { w.host.Reboot() }, false, false},
		{"always, host reboot", "always", func(w *world, _ vm.VMRecord) { w.host.Reboot() }, false, true},
		{"always, host reboot, but it was stopped", "always", func(w *world, _ vm.VMRecord) { w.host.Reboot() }, true, false},
		{"no, it was killed", "no", func(w *world, r vm.VMRecord) { w.crash(r.ID) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.runs("web", tt.policy)
			if tt.stopped {
				_, err := d.Stop(t.Context(), "web", true, 0)
				must(t, err)
				d.until(r.ID, "its end", atRest)
			}
			d.kill()
			tt.meanwhile(w, r)
			d = w.start()
			if tt.again {
				d.until(r.ID, "a restart", restarted(1))
				return
			}
			d.until(r.ID, "its end", atRest)
			if len(w.host.Running()) > 0 {
				t.Error("it runs")
			}
		})
	}
}

// A daemon that dies while a restart is to come, or in the middle of one, leaves it to the next.
func TestRestartGoesOnWithTheNextDaemon(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.runs("web", "on-failure:9")
	w.crash(r.ID)
	d.until(r.ID, "a restart to come", plan.Pending)
	d.kill()
	d = w.start()
	d.until(r.ID, "a restart", restarted(1))

	launched := make(chan struct{}, 1)
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { launched <- struct{}{}; return nil }}) // its guest does not come up
	w.crash(r.ID)
	<-launched
	d.kill()
	w.host.Rule(fake.Rules{})
	w.crash(r.ID)
	d = w.start()
	d.until(r.ID, "a third restart", restarted(3))
}

func TestRestartsAreCountedAnew(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.runs("web", "always")
	w.crash(r.ID)
	r = d.until(r.ID, "a restart", restarted(1))
	_, err := d.Store.Commit(t.Context(), r.ID, r.Generation, func(r *vm.VMRecord) { r.StartedAt = r.StartedAt.Add(-plan.RanWell) })
	must(t, err)
	d.known(r.ID).poke()
	d.until(r.ID, "its restarts to be forgotten", restarted(0))
}

func TestRestartPolicyIsRefused(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	for name, req := range map[string]api.CreateRequest{
		"an unknown one": {Restart: "often"}, "one of a VM that goes with its session": {Restart: "always", AutoRemove: true},
	} {
		if _, err := d.Create(t.Context(), req, nil); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.runs("web", "")
	if _, _, err := d.Set(t.Context(), "web", api.SetRequest{Restart: "often"}); vm.CodeOf(err) != vm.CodeInvalid {
		t.Errorf("set to an unknown one: %v", err)
	}
	r, pending, err := d.Set(t.Context(), "web", api.SetRequest{Restart: "on-failure"})
	if err != nil || len(pending) > 0 || r.Spec.Restart != "on-failure" {
		t.Errorf("%+v, %v, %v", r.Spec, pending, err)
	}
	w.crash(r.ID)
	d.until(r.ID, "a restart", restarted(1))
}
