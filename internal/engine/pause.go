package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// pauseWait bounds what a VMM may take to halt its machine, to set it going, or to tell.
const pauseWait = 5 * time.Second

// Pause halts a running VM's processors. Its memory stays, as do its connections as far as their other ends have patience. That
// a machine is paused is no intent and stands in no row: the VMM knows, and each daemon asks it. Pausing twice is success.
func (e *Engine) Pause(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	w, p, err := e.pausable(r)
	if err != nil {
		return r, err
	}
	if w.isPaused() {
		return e.Seen(r), nil
	}
	if err := w.halt(ctx, p, r, true); err != nil {
		return r, fmt.Errorf("pause VM %s: %w", r.Name, err)
	}
	now, err := e.Store.VM(ctx, r.ID)
	if err != nil || now.Want != vm.WantRunning { // it was told to end meanwhile, which takes a guest that runs
		return r, w.halt(ctx, p, r, false)
	}
	e.stateEvent(e.Seen(now))
	return e.Seen(now), nil
}

// Resume lets a paused VM go on. One that runs is success.
func (e *Engine) Resume(ctx context.Context, ref string) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if _, _, err := e.pausable(r); err != nil {
		return r, err
	}
	if err := e.resume(ctx, r); err != nil {
		return r, err
	}
	e.stateEvent(e.Seen(r))
	return e.Seen(r), nil
}

// pausable is what it takes to pause a VM that runs, and to have it go on.
func (e *Engine) pausable(r vm.VMRecord) (*worker, vmm.Pauser, error) {
	d, err := e.vmm(r.VMM)
	if err != nil {
		return nil, nil, err
	}
	p, ok := d.(vmm.Pauser)
	if !ok {
		return nil, nil, vm.Errorf(vm.CodeInvalid, "%s cannot pause a VM", r.VMM)
	}
	w := e.known(r.ID)
	if w == nil || r.Runtime.State != vm.StateRunning || !e.vmAlive(r) {
		return nil, nil, notRunning(r)
	}
	return w, p, nil
}

// resume sets a machine going, whoever halted it, if there is one.
func (e *Engine) resume(ctx context.Context, r vm.VMRecord) error {
	w, p, err := e.pausable(r)
	if err != nil {
		return nil //nolint:nilerr // it starts, or ends: nothing is halted
	}
	if err := w.halt(ctx, p, r, false); err != nil {
		return fmt.Errorf("set VM %s going: %w", r.Name, err)
	}
	return nil
}

// halt has the VMM halt the machine, or let it go on. Callers take turns: what is known is what was done last.
func (w *worker) halt(ctx context.Context, p vmm.Pauser, r vm.VMRecord, halted bool) error {
	ctx, cancel := context.WithTimeout(ctx, pauseWait)
	defer cancel()
	select {
	case w.halting <- struct{}{}:
		defer func() { <-w.halting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	do := p.Resume
	if halted {
		do = p.Pause
	}
	if halted { // before it is so: who ends the VM now has to know
		w.setPaused(true)
	}
	if err := do(ctx, refOf(r)); err != nil {
		w.askPaused(context.WithoutCancel(ctx), r)
		return err
	}
	w.setPaused(halted)
	w.poke()
	return nil
}

// askPaused finds out from the VMM whether its machine is paused. One that does not tell is taken for one that runs: reaching
// its guest says more.
func (w *worker) askPaused(ctx context.Context, r vm.VMRecord) {
	d, err := w.e.vmm(r.VMM)
	p, ok := d.(vmm.Pauser)
	if err != nil || !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pauseWait)
	defer cancel()
	paused, err := p.Paused(ctx, refOf(r))
	if err != nil && ctx.Err() == nil && w.e.Processes.Alive(w.e.Handles.Process(r.ID)) {
		w.e.Log.Warn("cannot ask whether a VM is paused", "vm", r.Name, "id", r.ID, "error", err)
	}
	w.setPaused(paused)
}

// goOn lets a guest that is to power itself off run.
func (w *worker) goOn(ctx context.Context, r vm.VMRecord) {
	d, err := w.e.vmm(r.VMM)
	p, ok := d.(vmm.Pauser)
	if err != nil || !ok || !w.isPaused() {
		return
	}
	if err := w.halt(ctx, p, r, false); err != nil {
		w.e.Log.Warn("a paused VM does not go on to its end", "vm", r.Name, "id", r.ID, "error", err)
	}
}

func (w *worker) setPaused(paused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused && !paused {
		w.named = "" // its clock stood still
	}
	w.paused = paused
}

func (w *worker) isPaused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paused
}
