package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// A removal that fails is shown so, goes on after each restart of the daemon from where it was, and waits at most one
// back-off, though the host's clock was set back meanwhile.
func TestAFailingRemoval(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r, healthy := d.run("web", false), d.run("healthy", false)
	w.faults.detach = errors.New("device busy")
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	first := d.until(r.ID, "a failed removal", func(r vm.VMRecord) bool { return r.Runtime.Attempts == 1 })
	for lives := 2; lives < 5; lives++ {
		d.kill()
		d = w.start()
		now := d.until(r.ID, "another failure", func(r vm.VMRecord) bool { return r.Runtime.Attempts >= lives })
		if now.State != vm.StateRemoving || !strings.Contains(now.Runtime.LastError, "device busy") ||
			!now.Runtime.LastErrorAt.Equal(first.Runtime.LastErrorAt) || !now.Runtime.RetryAt.After(first.Runtime.RetryAt) {
			t.Errorf("life %d: %+v, first %+v", lives, now.Runtime, first.Runtime)
		}
	}
	all, err := d.Store.VMs(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("a VM that cannot be removed costs the list: %d, %v", len(all), err)
	}
	if o := d.Observe(healthy); !o.Alive {
		t.Errorf("the other VM: %+v", o)
	}

	w.faults.detach = nil
	now, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	_, err = d.Store.Commit(t.Context(), r.ID, now.Generation, func(r *vm.VMRecord) {
		r.Runtime.RetryAt = time.Now().Add(time.Hour) // as seen by a clock that was set back
	})
	must(t, err)
	d.known(r.ID).poke()
	d.untilAbsent(r.ID)
}

// Who has removed what was in the way, and asks again, does not wait for the back-off.
func TestAskingAgainTriesAtOnce(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	w.faults.detach = errors.New("device busy")
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	failed := d.until(r.ID, "a failed removal", func(r vm.VMRecord) bool { return r.Runtime.Attempts > 0 })
	_, err = d.Store.Commit(t.Context(), r.ID, failed.Generation, func(r *vm.VMRecord) {
		r.Runtime.Attempts, r.Runtime.RetryAt = 9, time.Now().Add(4*time.Minute)
	})
	must(t, err)
	w.faults.detach = nil
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
}

// untilAbsent waits for the end of a removal that has failed before.
func (d *daemon) untilAbsent(id vm.ID) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := d.Watch().until(ctx, id, nil, func(vm.VMRecord) (bool, error) { return false, nil }); !isNotFound(err) {
		d.t.Errorf("it is not tried again: %v", err)
	}
}

// What somebody has mounted below a VM's directories, to look into its disk, say, is theirs: a removal says so, and waits.
func TestMountsAreNotRemovedWithAVM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	for _, dir := range []string{r.Runtime.VMDir, w.paths.VMRun(r.ID)} {
		at := filepath.Join(dir, "theirs")
		must(t, os.Mkdir(at, 0o700))
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
			t.Skipf("nothing can be mounted here: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
		must(t, os.WriteFile(filepath.Join(at, "kept"), nil, 0o600))
	}
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	for i, dir := range []string{w.paths.VMRun(r.ID), r.Runtime.VMDir} { // in the order in which they go
		at := filepath.Join(dir, "theirs")
		d.until(r.ID, "a removal that names "+at, func(r vm.VMRecord) bool {
			return r.State == vm.StateRemoving && strings.Contains(r.Runtime.LastError, at)
		})
		if !exists(filepath.Join(at, "kept")) {
			t.Errorf("try %d: what was mounted at %s is gone", i+1, at)
		}
		must(t, unix.Unmount(at, 0))
	}
	d.untilAbsent(r.ID)
	w.nothingLeft()
}
