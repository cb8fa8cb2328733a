package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/vm"
)

// Reset has a VM's system disk made anew from its image; its work disk stays. One that is not stopped is refused
// (vm.CodeConflict), or with force stopped before. What is to be done is committed first: a daemon that dies leaves it to the
// next.
func (e *Engine) Reset(ctx context.Context, ref string, force bool) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantStopped, vm.StateStopping, func(r *vm.VMRecord) error {
		if !force && !stopped(*r) {
			return vm.Errorf(vm.CodeConflict, "reset VM %s: it is %s, and its system disk in use", r.Name, r.Runtime.State).
				WithHint("banger vm stop %s, or reset it with --force", r.Name)
		}
		r.Runtime.ResetDue = true
		return nil
	})
}

// reset deletes the system disk: the next start makes one. Where that start has been asked for already, it fails with it.
func (w *worker) reset(ctx context.Context, r vm.VMRecord) error {
	done := w.stage(r, "reset")
	disks, err := w.e.disk(r.Disk)
	if err == nil {
		err = disks.Remove(ctx, w.e.overlay(r))
	}
	done(err)
	if err != nil {
		err = fmt.Errorf("remove the system disk: %w", err)
		if r.Want == vm.WantRunning {
			return w.giveUp(ctx, r, err)
		}
		return w.retry(ctx, r, err)
	}
	return w.commit(ctx, r, func(r *vm.VMRecord) {
		r.Runtime.ResetDue = false
		if r.Runtime.Attempts > 0 {
			r.Runtime.Attempts, r.Runtime.RetryAt = 0, time.Time{}
			r.Runtime.LastError, r.Runtime.LastErrorAt = "", time.Time{}
		}
	})
}
