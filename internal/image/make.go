package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// staged is an image that is being made.
type staged struct {
	dir  string // for all that making it takes
	root string // the disk that is to be
	img  vm.Image
}

// directory makes one below dir.
func (s *staged) directory(ctx context.Context, name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, act.Do(ctx, "staging.directory", func() error { return os.Mkdir(dir, 0o755) })
}

// make makes, publishes and records one image. fill makes its root disk, and completes it by its digest. Whatever happens, the
// staging directory is gone when it returns.
func (l *Library) make(ctx context.Context, img vm.Image, record func(context.Context, vm.Image) error, fill func(context.Context, *staged) error) (_ vm.Image, err error) {
	stage, err := l.stage(ctx)
	if err != nil {
		return vm.Image{}, err
	}
	defer func() {
		// Its own time: the build's may have been cancelled.
		rmCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, l.tools.remove(rmCtx, stage))
		l.release(stage)
	}()
	img.CreatedAt = time.Now().UTC().Truncate(time.Millisecond)
	s := &staged{dir: stage, img: img}
	out, err := s.directory(ctx, "out")
	if err != nil {
		return vm.Image{}, err
	}
	s.root = filepath.Join(out, rootFile)
	if err := fill(ctx, s); err != nil {
		return vm.Image{}, err
	}
	if err := finish(ctx, s.root, out, &s.img); err != nil {
		return vm.Image{}, err
	}
	return s.img, l.publish(ctx, out, s.img, record)
}

// fromTree makes the root disk of a directory tree, which fill fills: it returns the digest of what it did that from.
func (l *Library) fromTree(ctx context.Context, s *staged, step func(string), fill func(tree string) (digest string, err error)) error {
	tree, err := s.directory(ctx, "tree")
	if err != nil {
		return err
	}
	err = act.Do(ctx, "staging.tree", func() (err error) {
		s.img.Digest, err = fill(tree)
		return err
	})
	if err != nil {
		return err
	}
	if s.img.Init, err = initOf(tree); err != nil {
		return err
	}
	step("making the root disk")
	return act.Do(ctx, "staging.root", func() error { return l.tools.format(ctx, tree, s.root) })
}

// fromDisk makes the root disk of another one, which fill writes into the file that it is given. cleared = without what makes
// a machine itself.
func (l *Library) fromDisk(ctx context.Context, s *staged, step func(string), cleared bool, fill func(root string) error) error {
	err := act.Do(ctx, "staging.root", func() error {
		if err := os.WriteFile(s.root, nil, 0o644); err != nil {
			return err
		}
		return fill(s.root)
	})
	if err != nil {
		return err
	}
	sum, err := file.Sum(ctx, s.root)
	if err != nil {
		return err
	}
	s.img.Digest = fmt.Sprintf("%s%x", digestPrefix, sum)
	step("checking the file system")
	return act.Do(ctx, "staging.settle", func() (err error) {
		s.img.Init, err = l.tools.settle(ctx, s.root, cleared)
		return err
	})
}

// finish measures and describes the root disk, and brings both files to the disk.
func finish(ctx context.Context, root, out string, img *vm.Image) error {
	if err := act.Do(ctx, "staging.root.mode", func() error { return os.Chmod(root, 0o444) }); err != nil {
		return err
	}
	if err := file.Sync(root); err != nil {
		return err
	}
	var err error
	if img.Size, err = file.Allocated(root); err != nil {
		return err
	}
	b, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return err
	}
	record := filepath.Join(out, recordFile)
	if err := act.Do(ctx, "staging.description", func() error { return os.WriteFile(record, append(b, '\n'), 0o644) }); err != nil {
		return err
	}
	return file.Sync(record)
}

// publish moves the finished directory to its digest's place and records the image. A directory that is there already
// holds the same content and may be in use: it stays.
func (l *Library) publish(ctx context.Context, out string, img vm.Image, record func(context.Context, vm.Image) error) error {
	dir := l.dir(img.Digest)
	release, err := l.uses.Hold(ctx, img.Digest) // else the files could be found there and be deleted before the record
	if err != nil {
		return err
	}
	defer release()
	l.claim(dir)
	defer l.release(dir)
	_, err = os.Stat(l.RootPath(img.Digest))
	fresh := err != nil
	if fresh {
		if err := act.Do(ctx, "image.remove", func() error { return os.RemoveAll(dir) }); err != nil { // damaged: without its root
			return err
		}
		if l.cfg.Unnamed != nil { // a crash before the record leaves what is known to be nobody's
			if err := l.cfg.Unnamed.Add(ctx, img.Digest); err != nil {
				return err
			}
		}
		if err := file.Publish(ctx, "image", out, dir); err != nil {
			return err
		}
	}
	was, err := l.cfg.Records.ImageByName(ctx, img.Name)
	if err == nil || vm.CodeOf(err) == vm.CodeNotFound {
		err = record(ctx, img)
	}
	if err != nil {
		if fresh {
			err = errors.Join(err, act.Do(ctx, "image.remove", func() error { return os.RemoveAll(dir) }))
		}
		return fmt.Errorf("record image %s: %w", img.Digest, err)
	}
	if was.Digest != "" && was.Digest != img.Digest {
		_ = l.Sweep(ctx, was.Digest) // or Reconcile does
	}
	return nil
}

const stagePrefix = ".staging-"

// stage makes a new staging directory. Reconcile keeps its hands off it until release.
func (l *Library) stage(ctx context.Context) (string, error) {
	if err := act.Do(ctx, "directory", func() error { return os.MkdirAll(l.cfg.Dir, 0o755) }); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var dir string
	err := act.Do(ctx, "staging", func() (err error) {
		dir, err = os.MkdirTemp(l.cfg.Dir, stagePrefix)
		return err
	})
	if err != nil {
		return "", err
	}
	l.busy[filepath.Base(dir)] = true
	// apt drops root for downloads and must reach the tree.
	return dir, act.Do(ctx, "staging.mode", func() error { return os.Chmod(dir, 0o755) })
}

func (l *Library) claim(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy[filepath.Base(dir)] = true
}

func (l *Library) release(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, filepath.Base(dir))
}
