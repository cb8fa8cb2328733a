package engine

import (
	"context"
	"fmt"

	"banger/internal/act"
	"banger/internal/plan"
	"banger/internal/vm"
)

// Sweep takes down whatever a run of a VM at rest has left on the host, and returns when that is done: its worker does it,
// which alone may, since the VM may be started at any moment. For a VM that is not at rest there is nothing to do: what it
// has it needs, or its worker is at it already.
func (e *Engine) Sweep(ctx context.Context, id vm.ID) error {
	w := e.worker(id, false)
	if w == nil {
		return errStopping
	}
	done := make(chan error, 1)
	w.mu.Lock()
	w.sweeps = append(w.sweeps, done)
	w.mu.Unlock()
	w.poke()
	select {
	case err := <-done:
		return err
	case <-w.ended: // the VM has gone
		return nil
	case <-e.ctx.Done():
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sweep answers who called Sweep, in the round in which step was next.
func (w *worker) sweep(ctx context.Context, step plan.Step, r vm.VMRecord) {
	w.mu.Lock()
	waiting := w.sweeps
	w.sweeps = nil
	w.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var err error
	if step != plan.Idle { // the round was about the same, or about more, and has recorded how that went
		if now, rerr := w.e.Store.VM(ctx, w.id); rerr == nil && now.Runtime.Attempts > 0 {
			err = fmt.Errorf("%s (it is tried again by itself)", now.Runtime.LastError)
		}
	} else if r.Want == vm.WantStopped {
		ctx = act.In(ctx, "sweep")
		if err = w.takeDown(ctx, r); err == nil {
			w.e.settleNetwork(ctx, r)
		}
	}
	for _, done := range waiting {
		done <- err
	}
}
