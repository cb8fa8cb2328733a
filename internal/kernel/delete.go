package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/act"
	"banger/internal/inventory"
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

// Delete removes the kernel of that name, and its files when no other name has them. vm.CodeNotFound when there is none;
// vm.CodeConflict while VMs boot from it, whether they run or not, one is being made with it, or a driver is tried with it.
func (l *Library) Delete(ctx context.Context, name string) error {
	what := "delete kernel " + name
	k, err := l.Records.KernelByName(ctx, name)
	if vm.CodeOf(err) == vm.CodeNotFound {
		return vm.Errorf(vm.CodeNotFound, "%s: there is none of that name", what).WithHint("banger kernel list shows those there are")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	// From here to the end nobody begins to use the digest: not even its next import, which would find the files still there.
	done, ok := l.uses.Take(k.Digest)
	if !ok {
		return vm.Errorf(vm.CodeConflict, "%s: a VM is being created with it, KVM is being tried with it, or it is just being imported or deleted", what).WithHint("try again when that has ended")
	}
	defer done()
	defer l.making.Begin()() // nor are its files orphans, once the row is gone
	if l.Pinned != nil {
		if _, err := l.Pinned(ctx); err != nil { // VMs may boot from it of which no record tells
			return vm.Errorf(vm.CodeOf(err), "%s: find the kernels of VMs: %w", what, err).WithHint("%s", vm.HintOf(err))
		}
	}
	users, last, err := l.Records.DeleteKernel(ctx, name, k.Digest)
	if err != nil {
		return vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	if len(users) > 0 {
		return vm.Errorf(vm.CodeConflict, "%s: VMs boot from it: %s", what, inventory.Names(users)).WithHint("delete these VMs first: banger vm delete NAME")
	}
	dir, err := l.path(k.Digest)
	if !last || err != nil { // a row that named no directory
		return nil
	}
	if err := l.discard(context.WithoutCancel(ctx), filepath.Base(dir)); err != nil {
		return fmt.Errorf("%s: its name is gone, its files go when the daemon is started next: %w", what, err)
	}
	return nil
}

// discard deletes a kernel's directory, and its initramfs.
func (l *Library) discard(ctx context.Context, name string) error {
	errs := []error{l.remove(ctx, name)}
	cached, err := filepath.Glob(filepath.Join(l.InitramfsDir, name[:16]+"-*.img"))
	errs = append(errs, err)
	for _, path := range cached {
		err := act.Do(ctx, "initramfs.remove", func() error { return os.Remove(path) })
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
