package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// setWant commits a new intent and wakes the worker, ending what it does for the old one.
func (e *Engine) setWant(ctx context.Context, id vm.ID, want vm.Want, state vm.State) (vm.VMRecord, error) {
	r, err := e.Store.SetWant(ctx, id, want, state)
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
// disk is full, goes on.
func (e *Engine) Start(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if r.Want == vm.WantRunning {
		return r, e.resume(ctx, r)
	}
	if err := e.Limits.space(e.Paths.State, minFreeBytes); err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantRunning, vm.StateStarting)
}

// resumeWait bounds what a VMM may take to set its machine going.
const resumeWait = 5 * time.Second

func (e *Engine) resume(ctx context.Context, r vm.VMRecord) error {
	d, err := e.vmm(r.VMM)
	p, ok := d.(vmm.Pauser)
	if err != nil || !ok || r.Runtime.State != vm.StateRunning || !e.vmAlive(r) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, resumeWait)
	defer cancel()
	if err := p.Resume(ctx, refOf(r)); err != nil {
		return fmt.Errorf("set VM %s going: %w", r.Name, err)
	}
	return nil
}

// Stop ends a VM's run. Stopping one that is stopped is success. With force nothing is asked of the guest. grace is how
// long the guest's processes have to end; 0 = 10 s.
func (e *Engine) Stop(ctx context.Context, ref string, force bool, grace time.Duration) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if r.Want == vm.WantStopped && (r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError) {
		return r, nil
	}
	if w := e.known(r.ID); w != nil {
		w.mu.Lock()
		w.stop = stopHint{force, grace}
		w.mu.Unlock()
	}
	r, err = e.setWant(ctx, r.ID, vm.WantStopped, vm.StateStopping)
	if w := e.known(r.ID); err == nil && force && w != nil { // a gentle stop may be under way
		err = w.killNow(ctx, r)
	}
	return r, err
}

// Delete makes a VM go, whether it runs or not.
func (e *Engine) Delete(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	return e.setWant(ctx, r.ID, vm.WantGone, vm.StateRemoving)
}

// AwaitStarted waits until a VM that was told to start is ready, or until it is clear that it will not be.
func (e *Engine) AwaitStarted(ctx context.Context, id vm.ID, report vm.Report) (vm.VMRecord, error) {
	return e.await(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		switch {
		case r.Want != vm.WantRunning && r.Runtime.LastError != "":
			return true, e.startFailed(r)
		case r.Want != vm.WantRunning:
			return true, vm.Errorf(vm.CodeConflict, "VM %s was told to be %s while it started", r.Name, r.Want)
		}
		w := e.known(id)
		return r.Runtime.State == vm.StateRunning && w != nil && w.client() != nil, nil
	})
}

// startFailed words why a VM does not run, with the code and hint of the cause where this daemon saw it.
func (e *Engine) startFailed(r vm.VMRecord) error {
	code, hint := vm.CodeUnavailable, "banger vm logs "+r.Name+" shows its console"
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

// AwaitStopped waits until nothing of a VM's run is left.
func (e *Engine) AwaitStopped(ctx context.Context, id vm.ID, report vm.Report) (vm.VMRecord, error) {
	return e.await(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		switch {
		case r.Want == vm.WantRunning:
			return true, vm.Errorf(vm.CodeConflict, "VM %s was started again while it stopped", r.Name)
		case r.Runtime.Attempts > 0:
			return true, vm.Errorf(vm.CodeInternal, "stop VM %s: %s", r.Name, r.Runtime.LastError).WithHint("it is tried again by itself")
		}
		return r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError, nil
	})
}

// AwaitGone waits until a VM and its row are gone, or its removal failed once (it goes on in the background).
func (e *Engine) AwaitGone(ctx context.Context, id vm.ID, report vm.Report) error {
	_, err := e.await(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		if r.Runtime.Attempts > 0 {
			return true, vm.Errorf(vm.CodeInternal, "remove VM %s: %s", r.Name, r.Runtime.LastError).
				WithHint("it is tried again by itself; banger vm show %s tells", r.Name)
		}
		return false, nil
	})
	if isNotFound(err) {
		return nil
	}
	return err
}

// await reads a VM's record anew after each of its events until done says so or ctx ends. Waiting changes nothing: a
// caller that goes away only stops waiting.
func (e *Engine) await(ctx context.Context, id vm.ID, report vm.Report, done func(vm.VMRecord) (bool, error)) (vm.VMRecord, error) {
	events, stop := e.events.subscribe(id)
	defer func() { stop() }()
	for {
		r, err := e.Store.VM(ctx, id)
		if err != nil {
			return r, err
		}
		if ok, err := done(r); ok || err != nil {
			return r, err
		}
		select {
		case ev, ok := <-events:
			if ok {
				report.Send(ev)
				break
			}
			if e.ctx.Err() != nil {
				return r, errStopping
			}
			events, stop = e.events.subscribe(id) // we were too slow: nothing is lost, the record is read anew
		case <-e.ctx.Done():
			return r, errStopping
		case <-ctx.Done():
			return r, vm.Errorf(vm.CodeCanceled, "wait for VM %s: %w", r.Name, ctx.Err())
		}
	}
}
