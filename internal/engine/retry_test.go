package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := d.Watch().until(ctx, r.ID, nil, func(vm.VMRecord) (bool, error) { return false, nil }); !isNotFound(err) {
		t.Errorf("it is not tried again: %v", err)
	}
}
