package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

func TestPause(t *testing.T) {
	w := newWorld(t)
	var configured atomic.Int32
	w.host.Rule(fake.Rules{Configure: func(vmm.Config, fake.GuestConfigure) error { configured.Add(1); return nil }})
	d := w.start()
	r := d.run("web", false)
	for range 2 {
		now, err := d.Pause(t.Context(), "web")
		if err != nil || now.State != vm.StatePaused || now.Runtime.State != vm.StatePaused {
			t.Fatalf("%s, %v", now.State, err)
		}
	}
	stored, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if stored.State != vm.StateRunning || d.Seen(stored).State != vm.StatePaused {
		t.Errorf("the row says %s, and it is shown as %s", stored.State, d.Seen(stored).State)
	}
	if o := d.Observe(stored); !o.Alive || !o.Paused || o.Ready {
		t.Errorf("observed: %+v", o)
	}
	if _, err := d.Agent(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || vm.HintOf(err) != "banger vm resume web" {
		t.Errorf("something for its guest: %v (hint %q)", err, vm.HintOf(err))
	}
	if _, _, err := d.Session(t.Context(), "web"); !strings.Contains(err.Error(), "paused") {
		t.Errorf("a session: %v", err)
	}
	if now, told, err := d.Rename(t.Context(), "web", "mail"); err != nil || told || now.Name != "mail" {
		t.Errorf("renamed: %v, told %v", err, told)
	}
	for range 2 {
		if now, err := d.Resume(t.Context(), "mail"); err != nil || now.State != vm.StateRunning {
			t.Errorf("%s, %v", now.State, err)
		}
	}
	_, err = d.Wait(t.Context(), "mail", api.UntilReady)
	must(t, err)
	d.until(r.ID, "its guest to hear of its name", func(vm.VMRecord) bool { return d.known(r.ID).goesBy("mail") })
	before := configured.Load() // what had read the old name may have told that first
	_, err = d.Pause(t.Context(), "mail")
	must(t, err)
	_, err = d.Resume(t.Context(), "mail")
	must(t, err)
	d.until(r.ID, "its guest to be told the time", func(vm.VMRecord) bool { return d.known(r.ID).goesBy("mail") })
	if n := configured.Load(); n != before+1 {
		t.Errorf("configured %d times, and %d before it was paused again", n, before)
	}

	_, err = d.Stop(t.Context(), "mail", true, 0)
	must(t, err)
	d.until(r.ID, "its end", atRest)
	for name, do := range map[string]func(context.Context, string) (vm.VMRecord, error){"pause": d.Pause, "resume": d.Resume} {
		if _, err := do(t.Context(), "mail"); vm.CodeOf(err) != vm.CodeNotRunning {
			t.Errorf("%s a stopped one: %v", name, err)
		}
		if _, err := do(t.Context(), "nobody"); !isNotFound(err) {
			t.Errorf("%s none: %v", name, err)
		}
	}
}

// One that still starts is to be waited for, and not to be started.
func TestPauseOfOneThatStarts(t *testing.T) {
	w := newWorld(t)
	launched := make(chan struct{}, 1)
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { launched <- struct{}{}; return nil }})
	d := w.start()
	_, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	<-launched
	for what, do := range map[string]func(context.Context, string) (vm.VMRecord, error){"pause": d.Pause, "resume": d.Resume} {
		if _, err := do(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || vm.HintOf(err) != "banger vm wait --for ready web waits until it is" {
			t.Errorf("%s: %v (hint %q)", what, err, vm.HintOf(err))
		}
	}
}

// The next daemon finds out what no row says, and does not wait for a guest that cannot answer.
func TestPausedWhenTheDaemonDied(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	_, err := d.Pause(t.Context(), "web")
	must(t, err)
	d.kill()
	d = w.start()
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || d.Seen(now).State != vm.StatePaused {
		t.Errorf("shown as %s, %v", d.Seen(now).State, err)
	}
	if _, err := d.Agent(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || !strings.Contains(err.Error(), "paused") {
		t.Errorf("%v", err)
	}
	_, err = d.Start(t.Context(), "web") // as good as a resume
	must(t, err)
	if _, err := d.Watch().Started(t.Context(), r.ID, nil); err != nil {
		t.Error(err)
	}
	if got := d.guestName("web"); got != "web" {
		t.Errorf("its guest says that it is %q", got)
	}
}

func TestEndOfAPausedVM(t *testing.T) {
	for name, end := range map[string]func(d *daemon) error{
		"stop":    func(d *daemon) error { _, err := d.Stop(d.t.Context(), "web", false, time.Minute); return err },
		"kill":    func(d *daemon) error { _, err := d.Stop(d.t.Context(), "web", true, 0); return err },
		"delete":  func(d *daemon) error { _, err := d.Delete(d.t.Context(), "web"); return err },
		"restart": func(d *daemon) error { _, err := d.Restart(d.t.Context(), "web", false, time.Minute, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			_, err := d.Pause(t.Context(), "web")
			must(t, err)
			must(t, end(d))
			switch name {
			case "delete":
				d.untilGone(r.ID)
				w.nothingLeft()
			case "restart":
				if now, err := d.Store.VM(t.Context(), r.ID); err != nil || d.Seen(now).State != vm.StateRunning {
					t.Errorf("%s, %v", d.Seen(now).State, err)
				}
			default:
				now := d.until(r.ID, "its end", atRest)
				if name == "stop" && now.Runtime.LastError != "" {
					t.Errorf("its guest did not end by itself: %s", now.Runtime.LastError)
				}
			}
		})
	}
}

// stubborn is a VMM that does not halt its machine.
type stubborn struct{ *onePort }

func (stubborn) Pause(context.Context, vmm.Ref) error { return errors.New("no") }

func TestAPauseThatFails(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	d.VMMs[0] = stubborn{d.VMMs[0].(*onePort)}
	if _, err := d.Pause(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "pause VM web") {
		t.Errorf("%v", err)
	}
	if d.Seen(r).State != vm.StateRunning || d.guestName("web") != "web" {
		t.Error("it is taken for paused")
	}
}
