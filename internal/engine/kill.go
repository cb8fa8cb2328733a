package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

const (
	killGrace = 10 * time.Second // for the kernel to end a killed process
	killLook  = time.Second      // between two looks whether a killed process waits for its disk
)

// kill ends exactly this process and waits until it is gone: its tap, CID and disks are free only then.
func (w *worker) kill(ctx context.Context, r vm.VMRecord, id proc.Identity) error {
	err := act.Do(ctx, "process.kill", func() error { return w.e.Processes.Signal(id, unix.SIGKILL) })
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.killed = id
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	for {
		derr := w.freeDisk(ctx, r)
		err := within(ctx, killLook, func(ctx context.Context) error { return w.e.Processes.Wait(ctx, id) })
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the killed VMM (pid %d): %w", id.PID, errors.Join(err, derr))
		}
	}
}

// freeDisk ends the waiting of a VMM that was killed for a system disk that is frozen: it could not end before. What waits
// goes on where there is room for it and fails where there is none: the disk was frozen because it would fill the host's.
func (w *worker) freeDisk(ctx context.Context, r vm.VMRecord) error {
	d, err := w.e.disk(r.Disk)
	guard, ok := d.(disk.Guard)
	if err != nil || !ok {
		return err
	}
	o := w.e.overlay(r)
	return w.overDisk(ctx, func() error {
		h, err := guard.Health(ctx, o)
		switch {
		case err == nil && !h.Frozen:
			return nil
		case err == nil && h.HostFree >= 2*guardReserve:
			return guard.Thaw(ctx, o)
		}
		return errors.Join(err, guard.Abandon(ctx, o)) // which does nothing to a disk that is not frozen
	})
}

// wasKilled says that this process was told to end, whether it has or not.
func (w *worker) wasKilled(id proc.Identity) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.killed == id && id != proc.Identity{}
}

// killAll ends every process that can be proven to be this VM's: the one in the handles, and those found by its API
// socket, until none is.
func (w *worker) killAll(ctx context.Context, r vm.VMRecord) error {
	err := w.kill(ctx, r, w.e.Handles.Process(r.ID))
	d, derr := w.e.vmm(r.VMM)
	if derr != nil {
		return errors.Join(err, derr)
	}
	for err == nil {
		id, ok, ferr := d.Find(ctx, refOf(r))
		if ferr != nil || !ok {
			return ferr
		}
		err = w.kill(ctx, r, id)
	}
	return err
}
