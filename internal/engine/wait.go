package engine

import (
	"context"
	"slices"
	"strings"

	"banger/internal/vm"
)

// What can be waited for.
const (
	UntilReady   = "ready"   // its agent answers, and is configured
	UntilStopped = "stopped" // nothing of a run is left; a VM that is gone has stopped
	UntilGone    = "gone"    // there is no such VM any more
)

// Wait returns when a VM is as until says, whoever brings that about. It changes nothing. A VM that goes will never be
// ready: vm.CodeNotFound.
func (e *Engine) Wait(ctx context.Context, ref, until string) (vm.VMRecord, error) {
	known := []string{UntilGone, UntilReady, UntilStopped}
	if !slices.Contains(known, until) {
		return vm.VMRecord{}, vm.Errorf(vm.CodeInvalid, "wait for %q: it must be one of %s", until, strings.Join(known, ", "))
	}
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	last := r
	r, err = e.await(ctx, r.ID, nil, func(r vm.VMRecord) (bool, error) {
		last = r
		switch until {
		case UntilReady:
			if r.Want == vm.WantGone {
				return true, vm.Errorf(vm.CodeNotFound, "VM %s is being removed: it will not be ready", r.Name)
			}
			return r.Runtime.State == vm.StateRunning && e.Observe(r).Ready, nil
		case UntilStopped:
			return r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError, nil
		}
		return false, nil
	})
	if isNotFound(err) && until != UntilReady {
		return last, nil
	}
	return r, err
}
