package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"banger/internal/host/file"
	"banger/internal/host/logfile"
	"banger/internal/host/proc"
	"banger/internal/network"
	"banger/internal/plan"
	"banger/internal/vm"
)

const (
	defaultGrace = 10 * time.Second // for the guest's processes to end
	quitGrace    = 2 * time.Second  // for the VMM to end when told to

	cleanExit = "exit status 0" // of a VMM whose guest powered off
)

// attend stays with a process until it ends: it keeps its logs within bounds, and wakes the worker at the end.
// exited tells how it ended where this daemon is its parent; nil for an adopted process.
func (w *worker) attend(r vm.VMRecord, id proc.Identity, exited <-chan string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attended == id {
		return
	}
	w.attended, w.exit = id, &exit{known: make(chan struct{}), ours: exited != nil}
	x := w.exit
	ctx, cancel := context.WithCancel(w.e.ctx)
	for _, path := range logsOf(r) {
		w.e.wg.Go(func() {
			if err := logfile.Bound(ctx, path, logMax); err != nil && ctx.Err() == nil {
				w.e.Log.Warn("a log is not kept within bounds", "vm", r.Name, "id", r.ID, "log", path, "error", err)
			}
		})
	}
	w.e.wg.Go(func() {
		defer cancel()
		if exited == nil {
			if w.e.Processes.Wait(ctx, id) != nil {
				return
			}
		} else {
			select {
			case x.how = <-exited:
			case <-ctx.Done():
				return
			}
		}
		close(x.known)
		w.poke()
	})
}

// exit is how a process ended; how is empty when nobody can know.
type exit struct {
	known chan struct{} // closed when it has ended
	how   string        // valid then: "exit status 0", "signal: killed"
	ours  bool          // this daemon started it
}

// logMax bounds each of a VM's logs in bytes; as much again may lie in the ".1" of each.
const logMax = 1 << 20

// exitReason says how the VMM ended. The end of a process is seen by several eyes: wait a moment for the one that knows.
func (w *worker) exitReason() string {
	w.mu.Lock()
	x := w.exit
	w.mu.Unlock()
	if x == nil {
		return ""
	}
	late := time.NewTimer(time.Second)
	defer late.Stop()
	select {
	case <-x.known:
		return x.how
	case <-late.C:
		return ""
	}
}

// end stops a machine: the guest powers itself off, else the VMM quits, else it is killed. A forced stop kills at once.
func (w *worker) end(ctx context.Context, r vm.VMRecord) error {
	id := w.e.Handles.Process(r.ID)
	w.mu.Lock()
	hint, a := w.stop, w.agent
	w.mu.Unlock()
	done := w.stage(r, "stop")
	if hint.force {
		err := w.kill(ctx, r, id)
		done(err)
		return err
	}
	w.goOn(ctx, r)
	unsettled, err := w.endGently(ctx, r, id, a, or(hint.grace, defaultGrace))
	done(errors.Join(unsettled, err)) // who waits is told of either; only the latter is ours to repeat
	return err
}

// takeDown releases what a run held on the host, each step whatever became of the others, and forgets the handles only
// when nothing is left. Disks keep their content.
func (w *worker) takeDown(ctx context.Context, r vm.VMRecord) error {
	err := w.killAll(ctx, r) // first: nothing that a guest does may delay it
	w.closeAgent()
	if err != nil {
		return err // what a living VMM holds must not be pulled from under it
	}
	if d, derr := w.e.vmm(r.VMM); derr == nil { // there is one: killAll had it
		if derr := d.Remove(ctx, refOf(r)); derr != nil {
			err = errors.Join(err, fmt.Errorf("clear away what %s made: %w", d.Name(), derr))
		}
	}
	if net, nerr := w.e.network(r.Network); nerr != nil {
		err = errors.Join(err, nerr)
	} else if nerr := net.Remove(ctx, r.ID); nerr != nil {
		err = errors.Join(err, fmt.Errorf("detach network %s: %w", r.Network, nerr))
	} else if nerr := w.e.applyNetwork(ctx, net, r.ID); !errors.Is(nerr, network.ErrUnsettled) { // else others lack something: settleNetwork tells them
		err = errors.Join(err, nerr)
	}
	if disks, derr := w.e.disk(r.Disk); derr != nil {
		err = errors.Join(err, derr)
	} else if derr := disks.Detach(ctx, w.e.overlay(r)); derr != nil {
		err = errors.Join(err, fmt.Errorf("detach the system disk: %w", derr))
	}
	if cerr := w.e.Cgroups.Remove(ctx, r.ID); cerr != nil {
		err = errors.Join(err, cerr)
	}
	if rerr := file.RemoveTree(ctx, "run-directory", w.e.Paths.VMRun(r.ID)); rerr != nil {
		err = errors.Join(err, fmt.Errorf("remove the VM's sockets: %w", rerr))
	}
	if err != nil {
		return err
	}
	return w.e.Handles.Clear(ctx, r.ID, r.Runtime.VMDir)
}

// cleanUp takes down what a machine that does not live any more left, and commits that it is stopped and why.
func (w *worker) cleanUp(ctx context.Context, r vm.VMRecord) error {
	why, end := w.ending(r)
	w.mayCome(sessionMourned)
	if err := w.takeDown(ctx, r); err != nil {
		return w.retry(ctx, r, err, func(r *vm.VMRecord) {
			if settled := r.Runtime.State == vm.StateStopped || r.Runtime.State == vm.StateError; settled { // else nothing would say that more is to be done
				r.Runtime.State = vm.StateStopping
			}
		})
	}
	w.mu.Lock()
	w.stop = stopHint{}
	w.mu.Unlock()
	err := w.commit(ctx, r, func(r *vm.VMRecord) {
		why := again(r, end, why, vm.StateStopped)
		r.Runtime.Attempts, r.Runtime.RetryAt = 0, time.Time{}
		switch {
		case why != "":
			r.Runtime.LastError, r.Runtime.LastErrorAt = why, time.Now()
		case strings.HasPrefix(r.Runtime.LastError, diskWaits), strings.HasPrefix(r.Runtime.LastError, netFault):
			r.Runtime.LastError, r.Runtime.LastErrorAt = "", time.Time{}
		}
	})
	if err == nil && why != "" {
		w.e.counts.ends.Add(r.VMM)
	}
	w.e.settleNetwork(ctx, r)
	return err
}

// giveUp ends what a failed start began and commits the error.
func (w *worker) giveUp(ctx context.Context, r vm.VMRecord, cause error) error {
	w.mu.Lock()
	w.startError = cause
	w.mu.Unlock()
	w.mayCome(sessionMourned)
	if err := w.takeDown(ctx, r); err != nil {
		// The clean-up is retried with back-off, not the start; nobody wants it to run any more but its policy, which is asked
		// when nothing is left.
		return w.retry(ctx, r, errors.Join(cause, err), func(r *vm.VMRecord) {
			if !plan.Pending(*r) {
				r.Want = vm.WantStopped
			}
			r.Runtime.State = vm.StateStopping
		})
	}
	err := w.commit(ctx, r, func(r *vm.VMRecord) {
		why := cause.Error()
		if plan.Pending(*r) { // a first start that fails is told to who asked for it, and not repeated
			why = again(r, plan.End{Failed: true}, why, vm.StateError)
		} else {
			r.Want, r.Runtime.State = vm.WantStopped, vm.StateError
		}
		r.Runtime.LastError, r.Runtime.LastErrorAt = why, time.Now()
	})
	w.e.settleNetwork(ctx, r)
	return err
}

// remove ends the machine and deletes everything of it: kernel objects first, then the directory that could name them,
// the row last.
func (w *worker) remove(ctx context.Context, r vm.VMRecord) error {
	done := w.stage(r, "remove")
	err := ownDir(r)
	if err != nil {
		err = errors.Join(err, w.killAll(ctx, r)) // that much needs no file
	} else if err = w.takeDown(ctx, r); err == nil {
		err = w.removeFiles(ctx, r)
	}
	done(err)
	if err != nil {
		return w.retry(ctx, r, err)
	}
	err = w.e.Store.DeleteVM(ctx, r.ID)
	w.e.settleNetwork(ctx, r)
	if err == nil { // what is left of these goes when the daemon is started next, and is not the VM's
		if serr := errors.Join(w.e.Images.Sweep(ctx, r.ImageDigest), w.e.Kernels.Sweep(ctx, r.KernelDigest)); serr != nil {
			w.e.Log.Warn("what a VM stood on is left", "vm", r.Name, "id", r.ID, "error", serr)
		}
	}
	return err
}

func (w *worker) removeFiles(ctx context.Context, r vm.VMRecord) error {
	disks, err := w.e.disk(r.Disk)
	if err != nil {
		return err
	}
	if err := disks.Remove(ctx, w.e.overlay(r)); err != nil {
		return fmt.Errorf("remove the system disk: %w", err)
	}
	if err := file.RemoveTree(ctx, "vm-directory", r.Runtime.VMDir); err != nil {
		return fmt.Errorf("remove the VM's directory: %w", err)
	}
	return nil
}

// retry commits that a removal or clean-up failed, and when it is tried again. It is never given up.
func (w *worker) retry(ctx context.Context, r vm.VMRecord, cause error, also ...func(*vm.VMRecord)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.e.Log.Warn("clean-up failed, will be retried", "vm", r.Name, "id", r.ID, "want", r.Want, "error", cause)
	return w.commit(ctx, r, func(r *vm.VMRecord) {
		for _, change := range also {
			change(r)
		}
		if r.Runtime.Attempts++; r.Runtime.Attempts == 1 {
			r.Runtime.LastErrorAt = time.Now()
		}
		r.Runtime.LastError = cause.Error()
		r.Runtime.RetryAt = time.Now().Add(plan.Backoff(r.Runtime.Attempts))
	})
}
