package image

import (
	"context"
	"slices"

	"banger/internal/api"
	"banger/internal/vm"
)

// Show returns the image of that name with all its names, and the VMs that stand on it. vm.CodeNotFound when there is none.
func (l *Library) Show(ctx context.Context, name string) (api.ImageView, error) {
	img, err := l.cfg.Records.ImageByName(ctx, name)
	if err != nil {
		return api.ImageView{}, err
	}
	v := api.ImageView{Image: img, Path: l.RootPath(img.Digest)}
	names, vms, err := l.cfg.Records.ImageUsers(ctx, img.Digest)
	v.Names, v.VMs = append([]string{}, names...), append([]string{}, vms...) // arrays in JSON, empty ones too
	return v, err
}

// Unused lists the images that no VM stands on, by name. What is just being made from them is not looked at: Delete is.
func (l *Library) Unused(ctx context.Context) ([]vm.Image, error) {
	unused, err := l.names().Unused(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.List(ctx)
	return slices.DeleteFunc(all, func(i vm.Image) bool { return !unused(i.Digest) }), err
}

// Tag gives an image a second name. Errors: vm.CodeNotFound, CodeInvalid (the new name), CodeExists (it is another image's, and
// is not to move).
func (l *Library) Tag(ctx context.Context, from, to string, move bool) error {
	return l.names().Tag(ctx, from, to, move)
}

func (l *Library) copyName(ctx context.Context, from, digest, to string, move bool) error {
	img, err := l.cfg.Records.ImageByName(ctx, from)
	switch {
	case err != nil:
		return err
	case img.Digest != digest:
		return vm.Errorf(vm.CodeConflict, "it was replaced meanwhile")
	}
	if img.Name = to; move {
		return l.cfg.Records.PutImage(ctx, img)
	}
	return l.cfg.Records.AddImage(ctx, img)
}
