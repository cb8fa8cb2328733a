package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger/internal/guest"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// stopWaits are the bounds of an orderly stop beside its grace, which is for the guest's processes alone: a disk takes as
// long as it takes.
type stopWaits struct {
	answer time.Duration // for a guest to answer at all; a hung one is not waited for longer
	sync   time.Duration // for what is dirty before anything is told to end
	settle time.Duration // for the disks after the processes, while the guest says that it is at them
	look   time.Duration // between two questions whether it still is
}

var defaultStopWaits = stopWaits{answer: 5 * time.Second, sync: time.Minute, settle: time.Minute, look: time.Second}

// endGently has the guest power itself off. Where it does not, the VMM is told to quit, then killed. unsettled says that,
// and why, data may be lost; the record says it as well.
func (w *worker) endGently(ctx context.Context, r vm.VMRecord, id proc.Identity, a *agent, grace time.Duration) (unsettled, err error) {
	booting := a == nil && w.launchedHere()
	if a == nil { // asked to stop before the agent was reached, or by a daemon that found the VM in the middle of it
		d, err := w.e.vmm(r.VMM)
		if err != nil {
			return nil, err
		}
		a = newAgent(d, refOf(r))
		defer a.close()
	}
	why := w.powerOff(ctx, r, id, a.client, grace)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if why == nil {
		if how := w.exitReason(); how != "" && how != cleanExit {
			unsettled = w.noteUnsettled(ctx, r, fmt.Errorf("its VMM ended: %s", how))
		}
		return unsettled, nil
	}
	w.e.Log.Warn("the guest did not power off", "vm", r.Name, "id", r.ID, "error", why)
	if !booting { // a guest that was has written nothing anybody waits for
		unsettled = w.noteUnsettled(ctx, r, why)
	}
	return unsettled, w.endWithoutHelp(ctx, r, id)
}

// powerOff takes the guest to its end in the order in which nothing is lost: what is dirty is written while everything
// still runs, then processes get grace, then the disks get the time they need. An error says why it is not at its end.
func (w *worker) powerOff(ctx context.Context, r vm.VMRecord, id proc.Identity, c *guest.Client, grace time.Duration) error {
	waits := w.e.stopWaits
	ended := func(d time.Duration) bool {
		return within(ctx, d, func(ctx context.Context) error { return w.e.Processes.Wait(ctx, id) }) == nil
	}
	if err := w.tellToEnd(ctx, r, c, grace); err != nil {
		if ended(waits.look) { // it may have been its last moment: how the VMM ended says more
			return nil
		}
		return err
	}
	if ended(grace) {
		return nil
	}
	for deadline := time.Now().Add(waits.settle); ; {
		h, err := ask(ctx, c, waits.answer)
		switch {
		case err != nil && ended(quitGrace): // as above
			return nil
		case err != nil:
			return err
		case h.Ending == "":
			return errors.New("it was told to power off and does not")
		}
		if ended(min(waits.look, time.Until(deadline))) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it was still writing %v after its processes had their time", waits.settle)
		}
	}
}

// tellToEnd has the guest write what is dirty, and power itself off.
func (w *worker) tellToEnd(ctx context.Context, r vm.VMRecord, c *guest.Client, grace time.Duration) error {
	waits := w.e.stopWaits
	if _, err := ask(ctx, c, max(grace, waits.answer)); err != nil {
		return err
	}
	// Most of it, that is: what processes write meanwhile, and in their end, is left for the settling.
	err := within(ctx, waits.sync, c.Sync)
	if err != nil {
		w.e.Log.Warn("the guest's disks were not written before its end", "vm", r.Name, "id", r.ID, "error", err)
	}
	err = within(ctx, waits.answer, func(ctx context.Context) error {
		return c.PowerOff(ctx, guest.PowerOff{GraceMs: grace.Milliseconds()})
	})
	if err != nil {
		return fmt.Errorf("it was not told to power off: %w", err)
	}
	return nil
}

func ask(ctx context.Context, c *guest.Client, d time.Duration) (h guest.Hello, err error) {
	err = within(ctx, d, func(ctx context.Context) error { h, err = c.Hello(ctx); return err })
	if err != nil {
		return h, fmt.Errorf("it did not answer within %v: %w", d, err)
	}
	return h, nil
}

// within gives f no longer than d.
func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// noteUnsettled records that data may be lost, before the deed that loses it, and returns what it recorded. Where the
// intent has changed meanwhile, the record is another act's to write, and a log line has to do.
func (w *worker) noteUnsettled(ctx context.Context, r vm.VMRecord, why error) error {
	unsettled := fmt.Errorf("the guest did not settle its disks, what it wrote last may be lost: %w", why)
	err := w.commit(ctx, r, func(r *vm.VMRecord) {
		r.Runtime.LastError, r.Runtime.LastErrorAt = unsettled.Error(), time.Now()
	})
	if err != nil {
		w.e.Log.Warn("no record says that the guest's disks were not settled", "vm", r.Name, "id", r.ID, "error", err)
	}
	return unsettled
}

// endWithoutHelp ends the VMM from outside.
func (w *worker) endWithoutHelp(ctx context.Context, r vm.VMRecord, id proc.Identity) error {
	d, err := w.e.vmm(r.VMM)
	if err == nil {
		qctx, cancel := context.WithTimeout(ctx, quitGrace)
		defer cancel()
		if err := d.Quit(qctx, refOf(r)); err == nil && w.e.Processes.Wait(qctx, id) == nil {
			return nil
		}
	}
	return w.kill(ctx, r, id)
}

// launchedHere tells whether the process the worker attends is one that this daemon started.
func (w *worker) launchedHere() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exit != nil && w.exit.ours
}
