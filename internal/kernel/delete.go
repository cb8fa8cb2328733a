package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/act"
	"banger/internal/catalog"
	"banger/internal/vm"
)

// Use is Ensure, and keeps the kernel from being deleted until release is called: until then no record need tell of its user.
func (l *Library) Use(ctx context.Context, name string, report vm.Report) (k vm.Kernel, release func(), err error) {
	return l.hold(ctx, name, func() (vm.Kernel, error) { return l.Ensure(ctx, name, report) })
}

// Hold is Get, and keeps the kernel from being deleted until release is called. It makes none.
func (l *Library) Hold(ctx context.Context, name string) (k vm.Kernel, release func(), err error) {
	return l.hold(ctx, name, func() (vm.Kernel, error) { return l.Get(ctx, name) })
}

func (l *Library) hold(ctx context.Context, name string, get func() (vm.Kernel, error)) (k vm.Kernel, release func(), err error) {
	// The row is looked at before there is a hold, the files are not: they would seem damaged while they are deleted.
	k, err = l.Records.KernelByName(ctx, name)
	if vm.CodeOf(err) == vm.CodeNotFound {
		k, err = get()
	}
	for err == nil {
		held := k.Digest
		if release, err = l.uses.Hold(ctx, held); err != nil {
			return vm.Kernel{}, nil, fmt.Errorf("use kernel %s: %w", name, err)
		}
		if k, err = get(); err == nil && k.Digest == held {
			return k, release, nil
		}
		release() // what has the name now is held in its turn
	}
	return vm.Kernel{}, nil, err
}

// Delete removes the kernel of that name, and its files when no other name has them. only, unless empty, is the digest that it
// must have. vm.CodeNotFound when there is none; vm.CodeConflict while VMs boot from it, whether they run or not, one is being
// made with it, or a driver is tried with it.
func (l *Library) Delete(ctx context.Context, name, only string) error {
	return l.names().Delete(ctx, name, only)
}

// Sweep removes the files of a digest that no name and no VM has any more.
func (l *Library) Sweep(ctx context.Context, digest string) error {
	return l.names().Sweep(ctx, digest)
}

// names are those of the kernels.
func (l *Library) names() *catalog.Catalog {
	return &catalog.Catalog{
		Noun: "kernel", Stand: "VMs boot from it",
		Busy: "a VM is being created with it, KVM is being tried with it, or it is just being imported or deleted",
		Digest: func(ctx context.Context, name string) (string, error) {
			k, err := l.Records.KernelByName(ctx, name)
			return k.Digest, err
		},
		Users: l.Records.KernelUsers, Drop: l.Records.DeleteKernel, Copy: l.copyName,
		Pinned: l.Pinned, Claim: func(string) func() { return l.making.Begin() }, Discard: l.discard, Uses: &l.uses,
	}
}

// discard deletes a kernel's directory, and its initramfs.
func (l *Library) discard(ctx context.Context, digest string) error {
	dir, err := l.path(digest)
	if err != nil { // a row that named no directory
		return nil //nolint:nilerr // there is nothing to delete
	}
	name := filepath.Base(dir)
	errs := []error{l.remove(ctx, name)}
	cached, err := filepath.Glob(filepath.Join(l.InitramfsDir, name[:16]+"-*.img"))
	errs = append(errs, err)
	for _, path := range cached {
		err := act.Do(ctx, "initramfs.remove", func() error { return os.Remove(path) })
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err = errors.Join(errs...); err == nil && l.Unnamed != nil {
		err = l.Unnamed.Drop(ctx, digest)
	}
	return err
}
