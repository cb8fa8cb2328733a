package engine

import (
	"context"
	"time"

	"banger/internal/plan"
	"banger/internal/vm"
)

// setWant commits a new intent and wakes the worker, ending what it does for the old one.
func (e *Engine) setWant(ctx context.Context, id vm.ID, want vm.Want, state vm.State, also ...func(*vm.VMRecord) error) (vm.VMRecord, error) {
	r, err := e.Store.SetWant(ctx, id, want, state, also...)
	if err != nil {
		return r, err
	}
	e.stateEvent(r)
	w := e.worker(id, false)
	if w == nil {
		return r, errStopping
	}
	w.changed(want)
	return r, nil
}

// Start makes a stopped VM run. Starting one that runs is success; one whose VMM halted it, as QEMU does when the host's
// disk is full, goes on; one that waits for its restart waits no longer.
func (e *Engine) Start(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if r.Want == vm.WantRunning && !plan.Pending(r) {
		return r, e.resume(ctx, r)
	}
	ports, err := e.reserve(ctx, r, r.Spec.Ports)
	if err != nil {
		return r, err
	}
	defer e.unreserve(r, ports)
	release := e.published.Hold(r.ID, r.Name, ports)
	now, err := e.startAnyway(ctx, r)
	release(err == nil)
	return now, err
}

// startAnyway is Start for a VM whose ports may be taken: it runs without them, and they are tried again.
func (e *Engine) startAnyway(ctx context.Context, r vm.VMRecord) (vm.VMRecord, error) {
	if err := e.Limits.space(e.Paths.State, minFreeBytes); err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantRunning, vm.StateStarting)
}

// Stop ends a VM's run. Stopping one that is stopped is success. With force nothing is asked of the guest. grace is how
// long the guest's processes have to end; 0 = 10 s.
func (e *Engine) Stop(ctx context.Context, ref string, force bool, grace time.Duration) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if stopped(r) {
		return r, nil
	}
	if w := e.known(r.ID); w != nil {
		w.mu.Lock()
		w.stop = stopHint{force, grace}
		w.mu.Unlock()
	}
	process := e.Handles.Process(r.ID) // before the intent is known: who starts it again soon has another one
	r, err = e.setWant(ctx, r.ID, vm.WantStopped, vm.StateStopping)
	if w := e.known(r.ID); err == nil && force && w != nil { // a gentle stop may be under way
		err = w.kill(ctx, r, process)
	}
	return r, err
}

// Delete makes a VM go, whether it runs or not.
func (e *Engine) Delete(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if err := ownDir(r); err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantGone, vm.StateRemoving)
}

// DeleteStopped makes a VM go unless it is to run, or has not stopped yet (vm.CodeConflict): it may have been started since
// somebody looked.
func (e *Engine) DeleteStopped(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if err := ownDir(r); err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantGone, vm.StateRemoving, func(r *vm.VMRecord) error {
		if !stopped(*r) {
			return vm.Errorf(vm.CodeConflict, "VM %s is not stopped (%s)", r.Name, r.Runtime.State)
		}
		return nil
	})
}

// stopped says that a VM is not to run, and that nothing of a run is left as far as its row knows.
func stopped(r vm.VMRecord) bool {
	return r.Want == vm.WantStopped && (r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError)
}

// startFailed words why a VM does not run, with the code and hint of the cause where this daemon saw it.
func (e *Engine) startFailed(r vm.VMRecord) error {
	code, hint := vm.CodeUnavailable, "banger vm logs "+r.Name+" shows its console"
	if fileSize(r.Runtime.LogPath) == 0 { // it never came to a boot
		hint = "banger doctor looks at what VMs need of this host"
	}
	if w := e.known(r.ID); w != nil {
		w.mu.Lock()
		cause := w.startError
		w.mu.Unlock()
		if cause != nil && vm.HintOf(cause) != "" {
			code, hint = vm.CodeOf(cause), vm.HintOf(cause)
		}
	}
	return vm.Errorf(code, "start VM %s: %s", r.Name, r.Runtime.LastError).WithHint("%s", hint)
}
