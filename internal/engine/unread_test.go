package engine

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// broken is a world with one VM, whose column was damaged while no daemon ran, and its next daemon.
func broken(t *testing.T, column string, run bool) (*world, *daemon, vm.VMRecord) {
	t.Helper()
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	if !run {
		_, err := d.Stop(t.Context(), "web", false, 0)
		must(t, err)
		_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
		must(t, err)
	}
	d.kill()
	db, err := sql.Open("sqlite", w.paths.Database())
	must(t, err)
	_, err = db.Exec(`UPDATE vms SET ` + column + ` = '{'`)
	must(t, errors.Join(err, db.Close()))
	return w, w.start(), r
}

// With a spec of nothing it would start with no processor.
func TestAVMWhoseSpecCannotBeReadIsNotStarted(t *testing.T) {
	w, d, r := broken(t, "spec", false)
	_, err := d.Start(t.Context(), "web")
	if vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(err.Error(), "spec") || vm.HintOf(err) == "" {
		t.Errorf("%v (%s)", err, vm.HintOf(err))
	}
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.State != vm.StateError {
		t.Errorf("%+v, %v", now, err)
	}
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// It runs: it is adopted, once, and can be stopped.
func TestARunningVMWithABrokenRowIsKept(t *testing.T) {
	for _, column := range []string{"spec", "runtime"} {
		t.Run(column, func(t *testing.T) {
			w, d, r := broken(t, column, true)
			d.until(r.ID, "adopted", func(r vm.VMRecord) bool { return d.Observe(r).Ready })
			events, err := d.Events(t.Context(), "web")
			must(t, err)
			time.Sleep(300 * time.Millisecond)
			if n := len(events); n > 4 { // the adoption's own may still come
				t.Errorf("it is not left in peace: %d events", n)
			}
			_, err = d.Stop(t.Context(), "web", false, 0)
			must(t, err)
			now, err := d.Watch().Stopped(t.Context(), r.ID, nil)
			must(t, err)
			if now.State != vm.StateError || len(w.host.Running()) != 0 {
				t.Errorf("%+v", now)
			}
		})
	}
}

func TestAFailedRemovalOfABrokenRowWaits(t *testing.T) {
	w, d, r := broken(t, "runtime", false)
	w.faults.removeNet = errors.New("device busy")
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	d.until(r.ID, "a failed removal", func(r vm.VMRecord) bool { return r.Runtime.Attempts > 0 })
	time.Sleep(300 * time.Millisecond)
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Runtime.Attempts != 1 || !strings.Contains(now.Runtime.LastError, "device busy") {
		t.Errorf("%d attempts, %q, %v", now.Runtime.Attempts, now.Runtime.LastError, err)
	}
}
