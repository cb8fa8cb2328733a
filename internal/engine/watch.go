package engine

import (
	"context"

	"banger/internal/vm"
)

// Watch is what happens from the moment it was made. Made before an intent is told, it misses nothing of what follows.
// It serves one wait, which ends it.
type Watch struct {
	e *Engine
	*subscription
}

// Watch begins to watch. Whoever does not come to wait for something calls Stop.
func (e *Engine) Watch() *Watch { return &Watch{e, e.events.subscribe("")} }

// Stop ends the watch. It may be called more than once.
func (w *Watch) Stop() { w.e.events.end(w.subscription) }

// Started waits until a VM that was told to start is ready, or until it is clear that it will not be.
func (w *Watch) Started(ctx context.Context, id vm.ID, report vm.Report) (vm.VMRecord, error) {
	return w.until(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		switch {
		case r.Want != vm.WantRunning && r.Runtime.LastError != "":
			return true, w.e.startFailed(r)
		case r.Want != vm.WantRunning:
			return true, vm.Errorf(vm.CodeConflict, "VM %s was told to be %s while it started", r.Name, r.Want)
		}
		known := w.e.known(id)
		return r.Runtime.State == vm.StateRunning && known != nil && known.client() != nil, nil
	})
}

// Stopped waits until nothing of a VM's run is left.
func (w *Watch) Stopped(ctx context.Context, id vm.ID, report vm.Report) (vm.VMRecord, error) {
	return w.until(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		switch {
		case r.Want == vm.WantRunning:
			return true, vm.Errorf(vm.CodeConflict, "VM %s was started again while it stopped", r.Name)
		case r.Runtime.Attempts > 0:
			return true, vm.Errorf(vm.CodeInternal, "stop VM %s: %s", r.Name, r.Runtime.LastError).WithHint("it is tried again by itself")
		}
		return r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError, nil
	})
}

// Reset waits until a VM's old system disk is gone.
func (w *Watch) Reset(ctx context.Context, id vm.ID, report vm.Report) (vm.VMRecord, error) {
	return w.until(ctx, id, report, func(r vm.VMRecord) (bool, error) {
		switch {
		case r.Want == vm.WantGone:
			return true, vm.Errorf(vm.CodeConflict, "VM %s is being removed", r.Name)
		case r.Runtime.Attempts > 0:
			return true, vm.Errorf(vm.CodeInternal, "reset VM %s: %s", r.Name, r.Runtime.LastError).WithHint("it is tried again by itself")
		}
		return !r.Runtime.ResetDue, nil
	})
}

// Gone waits until a VM and its row are gone, or its removal failed once (it goes on in the background).
func (w *Watch) Gone(ctx context.Context, id vm.ID, report vm.Report) error {
	_, err := w.until(ctx, id, report, func(r vm.VMRecord) (bool, error) {
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

// until reads a VM's record anew after each of its events until done says so or ctx ends. Waiting changes nothing: a
// caller that goes away only stops waiting.
func (w *Watch) until(ctx context.Context, id vm.ID, report vm.Report, done func(vm.VMRecord) (bool, error)) (vm.VMRecord, error) {
	defer func() {
		w.tell(id, report) // what led to the end was published before the end was recorded
		w.Stop()
	}()
	w.e.events.narrow(w.subscription, id)
	name := ""
	for {
		r, err := w.e.Store.VM(ctx, id)
		if isNotFound(err) && name != "" {
			return r, vm.Errorf(vm.CodeNotFound, "VM %s was removed meanwhile", name)
		}
		if err != nil {
			return r, err
		}
		name = r.Name
		if ok, err := done(r); ok || err != nil {
			return r, err
		}
		select {
		case ev, ok := <-w.ch:
			if ok {
				w.send(id, ev, report)
				break
			}
			if w.e.ctx.Err() != nil {
				return r, errStopping
			}
			w.subscription = w.e.events.subscribe(id) // we were too slow: nothing is lost, the record is read anew
		case <-w.e.ctx.Done():
			return r, errStopping
		case <-ctx.Done():
			return r, vm.Errorf(vm.CodeCanceled, "wait for VM %s: %w", r.Name, ctx.Err())
		}
	}
}

// tell reports the events that have come already, and waits for none.
func (w *Watch) tell(id vm.ID, report vm.Report) {
	for {
		select {
		case ev, ok := <-w.ch:
			if !ok {
				return
			}
			w.send(id, ev, report)
		default:
			return
		}
	}
}

// send reports an event of the VM. Before the wait began, those of others came too.
func (w *Watch) send(id vm.ID, ev vm.Event, report vm.Report) {
	if ev.VM == id {
		report.Send(ev)
	}
}
