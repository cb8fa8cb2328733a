package kernel

import (
	"context"
	"slices"

	"banger/internal/api"
	"banger/internal/vm"
)

// Show returns the kernel of that name with all its names, and the VMs that boot from it. vm.CodeNotFound when there is none.
func (l *Library) Show(ctx context.Context, name string) (api.KernelView, error) {
	k, err := l.Get(ctx, name)
	if err != nil {
		return api.KernelView{}, err
	}
	v := api.KernelView{Kernel: k}
	if v.Path, err = l.path(k.Digest); err != nil {
		return v, err
	}
	names, vms, err := l.Records.KernelUsers(ctx, k.Digest)
	v.Names, v.VMs = append([]string{}, names...), append([]string{}, vms...) // arrays in JSON, empty ones too
	return v, err
}

// Unused lists the kernels that no VM boots from, by name. What is just being made with them is not looked at: Delete is.
func (l *Library) Unused(ctx context.Context) ([]vm.Kernel, error) {
	unused, err := l.names().Unused(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.List(ctx)
	return slices.DeleteFunc(all, func(k vm.Kernel) bool { return !unused(k.Digest) }), err
}

// Tag gives a kernel a second name. Errors: vm.CodeNotFound, CodeInvalid (the new name), CodeExists (it is another kernel's, and
// is not to move).
func (l *Library) Tag(ctx context.Context, from, to string, move bool) error {
	return l.names().Tag(ctx, from, to, move)
}

func (l *Library) copyName(ctx context.Context, from, digest, to string, move bool) error {
	k, err := l.Records.KernelByName(ctx, from)
	switch {
	case err != nil:
		return err
	case k.Digest != digest:
		return vm.Errorf(vm.CodeConflict, "it was replaced meanwhile")
	}
	if k.Name = to; move {
		return l.Records.PutKernel(ctx, k)
	}
	return l.Records.AddKernel(ctx, k)
}
