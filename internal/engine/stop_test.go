package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/handles"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// slowPowerOff makes guests take their time over a power-off: told says that one was told, and the test ends it.
func (w *world) slowPowerOff() (told <-chan struct{}) {
	c := make(chan struct{}, 8)
	w.host.Rule(fake.Rules{
		PowerOff: func(vmm.Config) bool { c <- struct{}{}; return false },
		Quit:     func(vmm.Config) bool { c <- struct{}{}; return true },
	})
	return c
}

// stopping begins a stop of a new VM whose guest does not come to an end, and returns its process.
func stopping(t *testing.T, w *world, d *daemon, told <-chan struct{}) (vm.VMRecord, proc.Identity) {
	t.Helper()
	r := d.run("web", false)
	p, ok := w.host.ProcessOf(r.ID)
	if !ok {
		t.Fatal("no process")
	}
	_, err := d.Stop(t.Context(), "web", false, time.Minute)
	must(t, err)
	<-told
	return r, p
}

// stillEnding fails the test when the guest's power-off is cut short by something that is done meanwhile.
func stillEnding(t *testing.T, w *world, p proc.Identity, told <-chan struct{}) {
	t.Helper()
	select {
	case <-told:
		t.Error("the guest or its VMM was told again")
	case <-time.After(100 * time.Millisecond):
	}
	if !w.host.Alive(p) {
		t.Fatal("the VMM was ended while its guest powered off")
	}
}

// What a guest has not written yet is lost when its power-off is cut short. Nothing but a removal or a forced stop may.
func TestAGentleStopIsFinished(t *testing.T) {
	t.Run("stopped again", func(t *testing.T) {
		w := newWorld(t)
		d := w.start()
		told := w.slowPowerOff()
		r, p := stopping(t, w, d, told)
		_, err := d.Stop(t.Context(), "web", false, time.Second)
		must(t, err)
		stillEnding(t, w, p, told)
		must(t, w.host.PowerOff(p))
		r, err = d.Watch().Stopped(t.Context(), r.ID, nil)
		if err != nil || r.Runtime.LastError != "" {
			t.Errorf("%+v, %v", r.Runtime, err)
		}
	})
	t.Run("started again", func(t *testing.T) {
		w := newWorld(t)
		d := w.start()
		told := w.slowPowerOff()
		r, p := stopping(t, w, d, told)
		_, err := d.Start(t.Context(), "web")
		must(t, err)
		stillEnding(t, w, p, told)
		w.host.Rule(fake.Rules{})
		must(t, w.host.PowerOff(p))
		if r, err = d.Watch().Started(t.Context(), r.ID, nil); err != nil {
			t.Fatal(err)
		}
		if now, ok := w.host.ProcessOf(r.ID); !ok || now == p {
			t.Errorf("it runs as %+v, before as %+v", now, p)
		}
	})
	t.Run("the daemon ends", func(t *testing.T) {
		w := newWorld(t)
		d := w.start()
		told := w.slowPowerOff()
		r, p := stopping(t, w, d, told)
		d.kill()
		stillEnding(t, w, p, told)
		must(t, w.host.PowerOff(p))
		d = w.start()
		if r = d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped }); r.Runtime.LastError != "" {
			t.Errorf("%+v", r.Runtime)
		}
	})
	t.Run("removed", func(t *testing.T) {
		w := newWorld(t)
		d := w.start()
		r, _ := stopping(t, w, d, w.slowPowerOff())
		_, err := d.Delete(t.Context(), "web")
		must(t, err)
		d.untilGone(r.ID)
		w.nothingLeft()
	})
	t.Run("killed", func(t *testing.T) {
		w := newWorld(t)
		d := w.start()
		r, _ := stopping(t, w, d, w.slowPowerOff())
		_, err := d.Stop(t.Context(), "web", true, 0)
		must(t, err)
		_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
		must(t, err)
	})
}

// A guest that was reached is not reached again: its channel takes one connection, and it is held.
func TestReadyGuestIsNotDialledAgain(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	// As after a commit that failed: the record does not say yet what the worker knows.
	_, err := d.Store.Commit(t.Context(), r.ID, r.Generation, func(r *vm.VMRecord) { r.Runtime.State = vm.StateStarting })
	must(t, err)
	d.known(r.ID).poke()
	d.until(r.ID, "running", func(r vm.VMRecord) bool { return r.State == vm.StateRunning })
	if now, ok := w.host.ProcessOf(r.ID); !ok || now != p {
		t.Errorf("it runs as %+v, before as %+v", now, p)
	}
}

// A full disk is no reason to take a living machine for dead.
func TestAdoptedThoughItsHandlesCannotBeWritten(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	d.kill()
	scratch := filepath.Join(r.Runtime.VMDir, handles.FileName)
	must(t, os.Remove(scratch))
	must(t, os.MkdirAll(filepath.Join(scratch, "in the way"), 0o700))
	d = w.start()
	if _, err := d.Agent(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if now, ok := w.host.ProcessOf(r.ID); !ok || now != p {
		t.Errorf("it runs as %+v, before as %+v", now, p)
	}
	must(t, os.RemoveAll(scratch))
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
}
