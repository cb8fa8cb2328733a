package engine

import (
	"context"
	"slices"
	"strings"

	"banger/internal/api"
	"banger/internal/vm"
)

// Wait returns when a VM is as until says, whoever brings that about. It changes nothing. A VM that goes will never be
// ready: vm.CodeNotFound.
func (e *Engine) Wait(ctx context.Context, ref, until string) (vm.VMRecord, error) {
	if known := api.Untils(); !slices.Contains(known, until) {
		return vm.VMRecord{}, vm.Errorf(vm.CodeInvalid, "wait for %q: it must be one of %s", until, strings.Join(known, ", "))
	}
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	last := r
	r, err = e.Watch().until(ctx, r.ID, nil, func(r vm.VMRecord) (bool, error) {
		last = r
		switch until {
		case api.UntilReady:
			if r.Want == vm.WantGone {
				return true, vm.Errorf(vm.CodeNotFound, "VM %s is being removed: it will not be ready", r.Name)
			}
			return r.Runtime.State == vm.StateRunning && e.Observe(r).Ready, nil
		case api.UntilStopped:
			return r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError, nil
		}
		return false, nil
	})
	if isNotFound(err) && until != api.UntilReady {
		return last, nil
	}
	return r, err
}
