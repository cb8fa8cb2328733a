package engine

import (
	"context"
	"time"

	"banger/internal/plan"
	"banger/internal/vm"
)

// netState is what is wrong with the network of a VM that runs. The channel to its guest is none of it: the guest is reached
// all the same, and the network tried again, with back-off.
type netState struct {
	fault string // for the record; empty when nothing is known to be wrong
	tries int    // that failed in a row
	next  time.Time
}

// netFault begins what is said of it. It is over with the run.
const netFault = "its network has a fault"

func (n netState) due() bool { return !n.next.IsZero() && !n.next.After(time.Now()) }

// networkFault notes how attach ended, and returns what is to end with its error: a first start.
func (w *worker) networkFault(ctx context.Context, r vm.VMRecord, err error) error {
	if err != nil && (ctx.Err() != nil || r.Runtime.State != vm.StateRunning) {
		return err
	}
	var n netState
	if err != nil {
		w.e.Log.Warn("a running VM may be without its network; it is tried again", "vm", r.Name, "id", r.ID, "error", err)
		n.fault = netFault + ": " + err.Error()
		if hint := vm.HintOf(err); hint != "" {
			n.fault += " (" + hint + ")"
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		n.tries = w.net.tries + 1
		n.next = time.Now().Add(plan.Backoff(n.tries))
	}
	w.net = n
	return nil
}

// networkMayBeBroken has the network of a VM that runs tried soon.
func (w *worker) networkMayBeBroken() {
	w.mu.Lock()
	if w.net.next.IsZero() {
		w.net.next = time.Now()
	}
	w.mu.Unlock()
	w.poke()
}

// attachIn is in how long the network is to be tried again; 0 = not.
func (w *worker) attachIn() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.net.next.IsZero() || !w.ready || w.paused {
		return 0
	}
	return max(time.Until(w.net.next), time.Millisecond)
}
