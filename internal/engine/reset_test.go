package engine

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

// written has the guest of a VM write to both of its disks.
func written(t *testing.T, r vm.VMRecord) {
	t.Helper()
	for _, path := range []string{r.Runtime.SystemOverlay, r.Runtime.WorkDiskPath} {
		must(t, os.WriteFile(path, []byte("written by the guest"), 0o600))
	}
}

// reset has a VM reset, and holds that its work disk is as the guest left it and its system disk is gone.
func (d *daemon) reset(ref string, force bool) vm.VMRecord {
	d.t.Helper()
	watch := d.Watch()
	r, err := d.Reset(d.t.Context(), ref, force)
	must(d.t, err)
	r, err = watch.Reset(d.t.Context(), r.ID, nil)
	must(d.t, err)
	if r.Runtime.ResetDue || !atRest(r) || exists(r.Runtime.SystemOverlay) {
		d.t.Errorf("%+v, its system disk is there: %v", r.Runtime, exists(r.Runtime.SystemOverlay))
	}
	if b, err := os.ReadFile(r.Runtime.WorkDiskPath); err != nil || string(b) != "written by the guest" {
		d.t.Errorf("the work disk: %q, %v", b, err)
	}
	return r
}

func TestReset(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	written(t, r)
	if _, err := d.Reset(t.Context(), "web", false); vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(vm.HintOf(err), "--force") {
		t.Errorf("of one that runs: %v", err)
	}
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Runtime.ResetDue || now.State != vm.StateRunning {
		t.Errorf("what was refused has changed it: %+v, %v", now, err)
	}
	d.reset("web", true)
	d.reset("web", false) // there is nothing to remove
	_, err := d.Start(t.Context(), "web")
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
	if b, err := os.ReadFile(r.Runtime.SystemOverlay); err != nil || string(b) != "root file system" {
		t.Errorf("the system disk is not the image's: %q, %v", b, err)
	}
	if _, err := d.Reset(t.Context(), "nobody", false); !isNotFound(err) {
		t.Errorf("of none: %v", err)
	}
}

// What was asked for is done by the next daemon, also where the VM was at rest, and before its next start.
func TestResetGoesOn(t *testing.T) {
	for _, start := range []bool{false, true} {
		w := newWorld(t)
		d := w.start()
		r := d.run("web", false)
		_, err := d.Stop(t.Context(), "web", true, 0)
		must(t, err)
		d.until(r.ID, "its end", atRest)
		written(t, r)
		d.kill()
		d = w.begin() // nobody has looked at it yet
		_, err = d.Store.SetWant(t.Context(), r.ID, vm.WantStopped, vm.StateStopped, func(r *vm.VMRecord) error { r.Runtime.ResetDue = true; return nil })
		must(t, err)
		if start {
			_, err = d.Start(t.Context(), "web")
			must(t, err)
			_, err = d.Watch().Started(t.Context(), r.ID, nil)
			must(t, err)
			if b, _ := os.ReadFile(r.Runtime.SystemOverlay); string(b) != "root file system" {
				t.Errorf("it was started with %q", b)
			}
			continue
		}
		must(t, d.Recover(t.Context()))
		d.until(r.ID, "its reset", func(r vm.VMRecord) bool { return !r.Runtime.ResetDue })
		if exists(r.Runtime.SystemOverlay) {
			t.Error("the system disk is there")
		}
	}
}

func TestResetThatFails(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	_, err := d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	d.until(r.ID, "its end", atRest)
	written(t, r)
	w.faults.remove = errors.New("no")
	watch := d.Watch()
	_, err = d.Reset(t.Context(), "web", false)
	must(t, err)
	if _, err := watch.Reset(t.Context(), r.ID, nil); err == nil || !strings.Contains(err.Error(), "reset VM web: remove the system disk: no") {
		t.Errorf("%v", err)
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	if _, err := d.Watch().Started(t.Context(), r.ID, nil); err == nil || !strings.Contains(err.Error(), "remove the system disk") {
		t.Errorf("a start with the disk that was to go: %v", err)
	}
	w.faults.remove = nil
	now := d.until(r.ID, "its reset", func(r vm.VMRecord) bool { return !r.Runtime.ResetDue })
	if now.Runtime.Attempts != 0 || !now.Runtime.RetryAt.IsZero() || exists(r.Runtime.SystemOverlay) {
		t.Errorf("%+v", now.Runtime)
	}
}

func TestDeleteStopped(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	if _, err := d.DeleteStopped(t.Context(), "web"); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("of one that runs: %v", err)
	}
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Want != vm.WantRunning {
		t.Errorf("%+v, %v", now, err)
	}
	_, err := d.Stop(t.Context(), "web", false, time.Minute)
	must(t, err)
	d.until(r.ID, "its end", atRest)
	_, err = d.DeleteStopped(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
	_, err = d.Create(t.Context(), api.CreateRequest{Name: "new"}, nil)
	must(t, err)
	_, err = d.DeleteStopped(t.Context(), "new")
	must(t, err)
}
