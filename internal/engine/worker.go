package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/plan"
	"banger/internal/store"
	"banger/internal/vm"
)

// worker brings one VM to what it should be. Its goroutine alone writes the VM's handles and run-time state; the
// mutex guards what API handlers read or hint.
type worker struct {
	e         *Engine
	id        vm.ID
	wake      chan struct{} // size 1: a wake-up is a fact, not a count
	pending   atomic.Int32  // wake-ups whose round is not over
	ended     chan struct{} // closed when it does no more rounds
	looked    chan struct{} // closed when the first round knows whether there is a process
	firstLook sync.Once
	recovered chan struct{} // closed after the first round
	halting   chan struct{} // holds a token while the machine is being halted or set going
	disk      chan struct{} // holds a token while guard or kill see to the system disk

	recovering  bool      // until the first look after the daemon's start; the goroutine's own
	consoleFrom int64     // where in the console's log this boot begins, 0 for an adopted machine; the goroutine's own
	logFrom     int64     // and in the VMM's
	launched    time.Time // when; zero for an adopted machine
	name        string    // the VM's, once its record was read; the goroutine's own
	failures    int       // rounds in a row that could not record their outcome; the goroutine's own

	mu         sync.Mutex
	interrupt  context.CancelFunc // ends the act that is under way, if it is one that may be interrupted
	insists    bool               // that act is a stop: only a removal interrupts it
	stop       stopHint
	attended   proc.Identity // the process somebody stays with
	exit       *exit         // how it ended
	startError error         // of the last start that failed: the record has its words, this its code and hint
	killed     proc.Identity // the process that was killed last
	keepsPorts bool          // between the two halves of a restart
	trouble    string        // what is wrong with the running VM's disk; empty when nothing is
	net        netState      // of the running VM
	agent      *agent        // session to the guest; nil when no process is known
	ready      bool          // the agent was configured
	paused     bool          // the machine was halted, as far as its VMM told
	named      string        // with this name, last; empty: it has been paused since
	cutOff     error         // why nobody can reach the guest of an adopted machine; nil when that is not known
	session    session
	sweeps     []chan<- error // whoever waits for a sweep
}

// stopHint is how the last stop was asked for. It is no intent: after a crash of the daemon, a stop is a gentle one.
type stopHint struct {
	force bool
	grace time.Duration
}

func newWorker(e *Engine, id vm.ID, recovering bool) *worker {
	w := &worker{e: e, id: id, wake: make(chan struct{}, 1), ended: make(chan struct{}), looked: make(chan struct{}), recovered: make(chan struct{}), halting: make(chan struct{}, 1), disk: make(chan struct{}, 1), recovering: recovering}
	w.session.over = recovering // a session dies with its daemon
	w.poke()
	return w
}

// poke asks for another round soon.
func (w *worker) poke() {
	w.pending.Add(1)
	select {
	case w.wake <- struct{}{}:
	default:
		w.pending.Add(-1)
	}
}

// changed says that the intent is want now: what is under way for another one ends, and another round comes. A guest that
// was told to power off does so whatever is wanted of it next.
func (w *worker) changed(want vm.Want) {
	w.mu.Lock()
	if w.interrupt != nil && (want == vm.WantGone || !w.insists) {
		w.interrupt()
	}
	w.mu.Unlock()
	w.poke()
}

// run does rounds until the VM is gone or the engine closes.
func (w *worker) run(ctx context.Context) {
	defer close(w.ended)
	defer w.closeAgent()
	var first sync.Once
	timer := time.NewTimer(0)
	<-timer.C
	for {
		woken := int32(0)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			woken = 1
		case <-timer.C:
		}
		again, gone := w.round(ctx)
		w.pending.Add(-woken)
		first.Do(func() { close(w.recovered) })
		if gone {
			w.e.retire(w)
			w.e.goneEvent(w.id, w.name)
			return
		}
		timer.Stop()
		if again > 0 {
			timer.Reset(again)
		}
	}
}

// round is one look, decision and act. again asks for another round after that long; 0 = when woken.
func (w *worker) round(ctx context.Context) (again time.Duration, gone bool) {
	mark := w.e.published.Mark()
	r, err := w.e.Store.VM(ctx, w.id)
	if isNotFound(err) {
		w.sweep(ctx, plan.Wait, r)
		w.e.published.Forget(w.id)
		return 0, true
	}
	if err != nil {
		return w.failed(ctx, "read the record", err), false
	}
	w.name = r.Name
	r.Runtime = w.e.complete(r)
	facts, err := w.look(act.In(ctx, "look"), r)
	if err != nil {
		return w.failed(ctx, "look", err), false
	}
	step := plan.Next(r, facts)
	w.e.Log.Debug("round", "vm", r.Name, "id", r.ID, "want", r.Want, "state", r.Runtime.State, "step", step, "facts", facts)
	ctx = act.In(ctx, strings.ReplaceAll(string(step), " ", "-"))
	ports := w.publish(ctx, step, r, mark)
	again, err = w.act(ctx, step, r)
	if err == nil && step == plan.Idle {
		err = w.recordTrouble(ctx, r)
	}
	w.sweep(ctx, step, r)
	if w.recovering {
		w.recovering = false
		w.poke() // the first round only saw to the crash; everyday life begins with the second
	}
	switch {
	case err == nil:
		w.failures = 0
		if step != plan.Idle && step != plan.Wait && again == 0 {
			w.poke() // a step may lead to the next one
		}
		return sooner(w.nextLook(r, again), ports), false
	case errors.Is(err, store.ErrStale), errors.Is(err, context.Canceled) && ctx.Err() == nil, isNotFound(err):
		w.poke() // the intent changed meanwhile: look again
		return 0, false
	case ctx.Err() != nil:
		return 0, false
	default:
		return w.failed(ctx, string(step), err), false
	}
}

// failed logs an error that no record could take (a database that does not answer, say) and asks for a later round.
func (w *worker) failed(ctx context.Context, what string, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	w.failures++
	w.e.Log.Error("round failed", "id", w.id, "step", what, "failures", w.failures, "error", err)
	w.e.events.publish(vm.Event{VM: w.id, Kind: "note"}) // who waits reads the record again, which may be what cannot be read
	return plan.Backoff(w.failures)
}

// nextLook adds the moments at which a VM that is removed with its session has waited long enough for one, and at which one
// that was restarted has run well.
func (w *worker) nextLook(r vm.VMRecord, again time.Duration) time.Duration {
	due := plan.NextLook(r, time.Now())
	if r.Spec.AutoRemove {
		w.mu.Lock()
		defer w.mu.Unlock()
		due = w.session.due(time.Now())
	}
	if due > 0 && (again == 0 || due < again) {
		return due
	}
	return again
}

func (w *worker) act(ctx context.Context, step plan.Step, r vm.VMRecord) (again time.Duration, err error) {
	switch step {
	case plan.Start:
		return 0, w.interruptible(ctx, r, false, w.start)
	case plan.Adopt:
		return 0, w.interruptible(ctx, r, false, w.adopt)
	case plan.Tell:
		return 0, w.interruptible(ctx, r, false, w.tell)
	case plan.Stop:
		return 0, w.interruptible(ctx, r, true, w.end)
	case plan.CleanUp:
		return 0, w.cleanUp(ctx, r)
	case plan.Reset:
		return 0, w.reset(ctx, r)
	case plan.Remove:
		return 0, w.remove(ctx, r)
	case plan.Forget:
		_, err := w.e.setWant(ctx, r.ID, vm.WantGone, vm.StateRemoving)
		return 0, err
	case plan.Wait:
		return plan.Due(r, time.Now()), nil
	case plan.Idle:
		return w.attachIn(), nil
	case plan.Steady:
		return 0, w.commit(ctx, r, func(r *vm.VMRecord) { r.Runtime.Restarts = 0 })
	}
	return 0, nil
}

// interruptible runs an act that a change of intent may end early. An interrupted act leaves its deeds to the next round.
func (w *worker) interruptible(ctx context.Context, r vm.VMRecord, insists bool, act func(context.Context, vm.VMRecord) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.interrupt, w.insists = cancel, insists
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.interrupt = nil
		w.mu.Unlock()
	}()
	// The intent may have changed between the reading of r and the line above.
	if now, err := w.e.Store.VM(ctx, r.ID); err == nil && now.Generation != r.Generation {
		return store.ErrStale
	}
	return act(ctx, r)
}

// commit records what a round found out, if the intent it acted for still stands, and tells subscribers.
func (w *worker) commit(ctx context.Context, r vm.VMRecord, change func(*vm.VMRecord)) error {
	r, err := w.e.Store.Commit(ctx, r.ID, r.Generation, change)
	if err == nil {
		w.e.stateEvent(r)
	}
	return err
}
