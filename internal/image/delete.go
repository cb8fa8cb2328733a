package image

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

// Use is Ensure, and keeps the image from being deleted until release is called: until then no record need tell of its user.
func (l *Library) Use(ctx context.Context, name string, report vm.Report) (img vm.Image, release func(), err error) {
	release = func() {}
	for held := ""; ; held = img.Digest {
		// Until it is found under a hold, it may be deleted as soon as it was found.
		if img, err = l.Ensure(ctx, name, report); err == nil && img.Digest == held {
			return img, release, nil
		}
		release()
		if err != nil {
			return vm.Image{}, nil, err
		}
		if release, err = l.uses.Hold(ctx, img.Digest); err != nil {
			return vm.Image{}, nil, fmt.Errorf("use image %s: %w", name, err)
		}
	}
}

// Delete removes the image of that name, and its files when no other name has them. only, unless empty, is the digest that it
// must have. vm.CodeNotFound when there is none; vm.CodeConflict while VMs stand on it, whether they run or not, or one is
// being made from it.
func (l *Library) Delete(ctx context.Context, name, only string) error {
	return l.names().Delete(ctx, name, only)
}

// Sweep removes the files of a digest that no name and no VM has any more.
func (l *Library) Sweep(ctx context.Context, digest string) error {
	return l.names().Sweep(ctx, digest)
}

// names are those of the images.
func (l *Library) names() *catalog.Catalog {
	return &catalog.Catalog{
		Noun: "image", Stand: "VMs stand on it", Busy: "a VM is being created from it, or it is just being built or deleted",
		Digest: func(ctx context.Context, name string) (string, error) {
			img, err := l.cfg.Records.ImageByName(ctx, name)
			return img.Digest, err
		},
		Users: l.cfg.Records.ImageUsers, Drop: l.cfg.Records.DeleteImage, Copy: l.copyName,
		Pinned: l.cfg.Pinned, Claim: l.claimAll, Discard: l.discard, Uses: &l.uses,
	}
}

// away is where the directory of a digest goes before it is deleted.
func (l *Library) away(digest string) string {
	return filepath.Join(l.cfg.Dir, stagePrefix+filepath.Base(l.dir(digest)))
}

func (l *Library) claimAll(digest string) (end func()) {
	l.claim(l.dir(digest))
	l.claim(l.away(digest))
	return func() {
		l.release(l.dir(digest))
		l.release(l.away(digest))
	}
}

// discard deletes an image's directory. It loses its name first: what is half removed must not look like an image. That
// takes no room, which may be what is wanted.
func (l *Library) discard(ctx context.Context, digest string) error {
	dir, away := l.dir(digest), l.away(digest)
	if !digestDir.MatchString(filepath.Base(dir)) { // a row that named no directory
		return nil
	}
	err := act.Do(ctx, "image.remove", func() error { return os.Rename(dir, away) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, l.tools.remove(ctx, away)); err == nil && l.cfg.Unnamed != nil {
		err = l.cfg.Unnamed.Drop(ctx, digest)
	}
	return err
}
