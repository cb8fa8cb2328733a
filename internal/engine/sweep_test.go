package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/handles"
	"banger/internal/vm"
)

// What a run left of a VM at rest is taken down when somebody asks, by the worker; what a running one has stays.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	web, db := d.run("web", false), d.run("db", false)
	_, err := d.Stop(t.Context(), "db", true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), db.ID, nil)
	must(t, err)

	left := filepath.Join(w.paths.VMRun(db.ID), "api.sock") // a crash that this daemon knows nothing of
	made := t.TempDir()                                     // whole at once: a late look of the worker may take it away before it is asked to
	must(t, os.WriteFile(filepath.Join(made, "api.sock"), nil, 0o600))
	must(t, os.Rename(made, filepath.Dir(left)))
	for range 2 {
		must(t, d.Sweep(t.Context(), db.ID))
	}
	if exists(filepath.Dir(left)) {
		t.Error("what was left is there still")
	}
	if r, err := d.Store.VM(t.Context(), db.ID); err != nil || r.Runtime.State != vm.StateStopped || r.Want != vm.WantStopped {
		t.Errorf("%+v, %v", r.Runtime, err)
	}

	before := d.Handles.Get(web.ID)
	must(t, d.Sweep(t.Context(), web.ID))
	if _, ok := w.host.ProcessOf(web.ID); !ok || d.Handles.Get(web.ID) != before || !exists(w.paths.VMRun(web.ID)) {
		t.Error("a running VM was swept")
	}
	must(t, d.Sweep(t.Context(), "0000000000ff")) // one that has gone meanwhile
}

// A VM that is wanted again is not swept from under its start, and a process that nobody wanted is ended.
func TestSweepEndsWhatShouldNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	_, err := d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	config := w.host.Launched()[0]
	driver, err := d.vmm("qemu")
	must(t, err)
	w.faults.detach = errors.New("it is held") // before there is anything to sweep, which a late look of the worker may see first
	err = os.ErrNotExist
	for range 100 { // a late look of the worker may take the directory away
		must(t, os.MkdirAll(w.paths.VMRun(r.ID), 0o700))
		if _, _, err = driver.Launch(t.Context(), config); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	must(t, err)
	must(t, os.RemoveAll(w.paths.VMRun(r.ID)))
	// By the sweep itself, or by a late look of the worker, whose words the record has.
	if err := d.Sweep(t.Context(), r.ID); err == nil || !strings.Contains(err.Error(), "it is held") {
		t.Errorf("a sweep that failed: %v", err)
	}
	must(t, os.MkdirAll(w.paths.VMRun(r.ID), 0o700)) // which the worker sees by itself
	if err := d.Sweep(t.Context(), r.ID); err == nil || !strings.Contains(err.Error(), "it is held") {
		t.Errorf("a clean-up that failed: %v", err)
	}
	w.faults.detach = nil
	d.until(r.ID, "its clean-up", func(r vm.VMRecord) bool { return r.Runtime.Attempts == 0 })
	must(t, d.Sweep(t.Context(), r.ID))
	if _, ok := w.host.ProcessOf(r.ID); ok || exists(w.paths.VMRun(r.ID)) {
		t.Error("it is not swept")
	}
	if h := handles.Read(r.ID, r.Runtime.VMDir); !h.IsZero() {
		t.Errorf("handles %+v", h)
	}
	if _, err := d.Start(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	must(t, d.Sweep(t.Context(), r.ID)) // in the midst of its start
	if _, err := d.Watch().Started(t.Context(), r.ID, nil); err != nil {
		t.Errorf("swept from under its start: %v", err)
	}
}
