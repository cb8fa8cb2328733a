package engine

import (
	"context"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// whileRoom is ctx for as long as a build's VM does not wait for room on the host's file system: it may wait for ever, and who builds
// sees nothing of it. The cause tells of it. Call stop when the VM is not needed any more.
//
// The VMM is asked now and then: QEMU tells by itself only who holds its monitor, and nobody else could pause or stop the VM then.
func (e *Engine) whileRoom(ctx context.Context, r vm.VMRecord) (room context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.Runtime = e.complete(r)
	watched := e.background(func(stopping context.Context) {
		defer context.AfterFunc(stopping, func() { cancel(errStopping) })()
		tick := time.NewTicker(e.GuardEvery)
		defer tick.Stop()
		for !e.outOfSpace(ctx, r) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		free, err := e.Limits.FreeBytes(e.Paths.VMs())
		e.Log.Warn("a build's VM waits for room on the host: the build ends", "vm", r.Name, "id", r.ID, "free", free, "error", err)
		cancel(vm.Errorf(vm.CodeNoSpace, "no space is left on the file system of %s for what its VM writes: %d MiB are free", e.Paths.VMs(), free>>20).
			WithHint("nothing was made; free some space there, as banger vm prune and banger image prune do, and build it again"))
	})
	if !watched {
		cancel(errStopping)
	}
	return ctx, func() { cancel(nil) }
}

// outOfSpace says whether a VM waits for room: its VMM has halted its machine for that, or its disk was frozen before.
func (e *Engine) outOfSpace(ctx context.Context, r vm.VMRecord) bool {
	if w := e.known(r.ID); w != nil && w.troubled() {
		return true
	}
	d, err := e.vmm(r.VMM)
	h, ok := d.(vmm.Halter)
	if err != nil || !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, e.pulseTimes.vmm)
	defer cancel()
	full, err := h.OutOfSpace(ctx, refOf(r))
	return err == nil && full
}
