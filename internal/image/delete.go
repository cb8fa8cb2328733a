package image

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

// Delete removes the image of that name, and its files when no other name has them. vm.CodeNotFound when there is none;
// vm.CodeConflict while VMs stand on it, whether they run or not, or one is being made from it.
func (l *Library) Delete(ctx context.Context, name string) error {
	what := "delete image " + name
	img, err := l.cfg.Records.ImageByName(ctx, name)
	if vm.CodeOf(err) == vm.CodeNotFound {
		return vm.Errorf(vm.CodeNotFound, "%s: there is none of that name", what).WithHint("banger image list shows those there are")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	// From here to the end nobody begins to use the digest: not even its next build, which would find the files still there.
	done, ok := l.uses.Take(img.Digest)
	if !ok {
		return vm.Errorf(vm.CodeConflict, "%s: a VM is being created from it, or it is just being built or deleted", what).WithHint("try again when that has ended")
	}
	defer done()
	if l.cfg.Pinned != nil {
		if _, err := l.cfg.Pinned(ctx); err != nil { // VMs may stand on it of which no record tells
			return vm.Errorf(vm.CodeOf(err), "%s: find the images of VMs: %w", what, err).WithHint("%s", vm.HintOf(err))
		}
	}
	dir := l.dir(img.Digest)
	away := filepath.Join(l.cfg.Dir, stagePrefix+filepath.Base(dir))
	l.claim(dir) // nor are these orphans, once the row is gone
	defer l.release(dir)
	l.claim(away)
	defer l.release(away)
	users, last, err := l.cfg.Records.DeleteImage(ctx, name, img.Digest)
	if err != nil {
		return vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	if len(users) > 0 {
		return vm.Errorf(vm.CodeConflict, "%s: VMs stand on it: %s", what, inventory.Names(users)).WithHint("delete these VMs first: banger vm delete NAME")
	}
	if !last || !digestDir.MatchString(filepath.Base(dir)) {
		return nil
	}
	if err := l.discard(context.WithoutCancel(ctx), dir, away); err != nil {
		return fmt.Errorf("%s: its name is gone, its files go when the daemon is started next: %w", what, err)
	}
	return nil
}

// discard deletes an image's directory. It loses its name first, to away: what is half removed must not look like an image.
// That takes no room, which may be what is wanted.
func (l *Library) discard(ctx context.Context, dir, away string) error {
	err := act.Do(ctx, "image.remove", func() error { return os.Rename(dir, away) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.tools.remove(ctx, away))
}
