package engine

import (
	"context"
	"os"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/image"
	"banger/internal/vm"
)

// CommitVM makes an image of a stopped VM's system disk; the work disk is no part of it. A VM that runs, or is paused, is refused
// (vm.CodeConflict): what its guest has in memory is on no disk. Nothing keeps the VM from being started meanwhile: then the
// commit fails, and the VM does not.
func (e *Engine) CommitVM(ctx context.Context, ref string, req api.CommitRequest, report vm.Report) (vm.Image, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return vm.Image{}, err
	}
	what := "commit VM " + r.Name
	r.Runtime = e.complete(r)
	disks, err := e.disk(r.Disk)
	switch {
	case err != nil:
		return vm.Image{}, err
	case !stopped(r) || r.Runtime.ResetDue:
		return vm.Image{}, vm.Errorf(vm.CodeConflict, "%s: it is %s, and its system disk in use", what, e.Seen(r).Runtime.State).
			WithHint("banger vm stop %s, then commit it", r.Name)
	}
	if _, err := os.Stat(r.Runtime.SystemOverlay); err != nil {
		return vm.Image{}, vm.Errorf(vm.CodeConflict, "%s: it has no system disk: it was never started, or reset since", what).
			WithHint("banger image tag %s %s gives its image that name", r.Image, req.Image)
	}
	o := image.AdoptOptions{What: what, Name: req.Image, Source: "VM " + r.Name + " of " + r.Image, Env: r.Spec.Env, Force: req.Force}
	return e.adopt(ctx, r, disks, o, report)
}

// adopt makes an image of the system disk of a VM that was just seen stopped.
func (e *Engine) adopt(ctx context.Context, r vm.VMRecord, disks disk.Driver, o image.AdoptOptions, report vm.Report) (vm.Image, error) {
	return e.Images.Adopt(ctx, o, func(ctx context.Context, root string) error {
		if err := disks.Flatten(ctx, e.overlay(r), root); err != nil {
			return err
		}
		now, err := e.Store.VM(ctx, r.ID)
		if isNotFound(err) || err == nil && (now.Generation != r.Generation || !stopped(now)) {
			return vm.Errorf(vm.CodeConflict, "it was started, reset or deleted while its disk was read").WithHint("try again when it is stopped")
		}
		return err
	}, report)
}
