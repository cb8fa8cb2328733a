package engine

import (
	"context"
	"time"

	"banger/internal/act"
	"banger/internal/vm"
)

// Restart ends a VM's run and starts it again; one that is stopped is only started. It goes on when its caller goes away.
// A daemon that ends leaves the VM stopped: the intent is a stop until nothing of the run is left.
func (e *Engine) Restart(ctx context.Context, ref string, force bool, grace time.Duration, report vm.Report) (vm.VMRecord, error) {
	watch := e.Watch()
	defer watch.Stop()
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if stopped(r) {
		if r, err = e.Start(ctx, string(r.ID)); err != nil {
			return r, err
		}
		return watch.Started(ctx, r.ID, report)
	}
	loose := e.keepPorts(r)
	if r, err = e.Stop(ctx, string(r.ID), force, grace); err != nil {
		loose()
		return r, err
	}
	started := make(chan error, 1)
	ok := e.background(func(ctx context.Context) {
		ctx = act.In(ctx, "vm-restart")
		_, err := e.Watch().Stopped(ctx, r.ID, nil)
		if err == nil {
			_, err = e.startAnyway(ctx, r)
		}
		loose()
		started <- err
	})
	if !ok {
		loose()
		return r, errStopping
	}
	select {
	case err = <-started:
	case <-ctx.Done():
		err = vm.Errorf(vm.CodeCanceled, "wait for the restart of VM %s: %w", r.Name, ctx.Err())
	}
	if err != nil {
		return r, err
	}
	return watch.Started(ctx, r.ID, report)
}
