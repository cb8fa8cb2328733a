package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// BuildOptions say what to build.
type BuildOptions struct {
	Recipe   string   // which recipe; empty: the one called Name
	Name     string   // of the image; empty: the recipe's
	Packages []string // Debian packages beside the recipe's and the configured ones
	Mirror   string   // as Config.Mirror, which it beats
	Force    bool     // build even if the image is there; VMs keep the old one
}

// tools are the steps that run programs of the host; tests put others in their place.
type tools struct {
	bootstrap func(ctx context.Context, r recipe, mirror, tmp string, tar io.Writer, step func(string)) error
	unpack    func(ctx context.Context, tar io.Reader, tree string) error
	format    func(ctx context.Context, tree, root string) error
	remove    func(ctx context.Context, stage string) error
}

func hostTools() tools {
	return tools{bootstrap: bootstrap, unpack: unpack, format: format, remove: remove}
}

// Build makes an image. One that is there and was built with the same packages is returned as it is, unless forced;
// with others the error is vm.CodeExists. Callers of one name share one build, which ends when the last of them goes.
//
// report gets the stage "image" and a note for each part of the work. Errors: vm.CodeNotFound (no such recipe),
// CodeInvalid (packages, mirror), CodeMissing (mmdebstrap, keys), CodeNoSpace, CodeConflict (being built otherwise).
func (l *Library) Build(ctx context.Context, o BuildOptions, report vm.Report) (img vm.Image, err error) {
	if o.Recipe == "" {
		o.Recipe = o.Name
	}
	if o.Name == "" {
		o.Name = o.Recipe
	}
	r, ok := recipeNamed(o.Recipe)
	if !ok {
		return vm.Image{}, vm.Errorf(vm.CodeNotFound, "no recipe is named %q", o.Recipe).WithHint("%s", l.known(ctx))
	}
	if err := l.names().CheckName(o.Name); err != nil {
		return vm.Image{}, err
	}
	r = r.with(l.cfg.Packages...).with(o.Packages...)
	if o.Mirror == "" {
		o.Mirror = l.cfg.Mirror
	}
	if err := errors.Join(validatePackages(r.packages), validateMirror(o.Mirror)); err != nil {
		return vm.Image{}, err
	}
	if !o.Force {
		img, err := l.present(ctx, o.Name)
		switch {
		case err == nil && img.Source == r.source():
			return img, nil
		case err == nil:
			return vm.Image{}, vm.Errorf(vm.CodeExists, "image %s exists: %s", o.Name, img.Source).WithHint("--force builds it anew; VMs keep the old one")
		case vm.CodeOf(err) != vm.CodeNotFound:
			return vm.Image{}, err
		}
	}
	end := report.Stage(vm.Event{Name: o.Name}, "image")
	defer func() { end(err) }()
	want := r.source()
	if o.Mirror != "" {
		want += " from " + o.Mirror
	}
	return l.fly(ctx, o.Name, want, report, func(ctx context.Context, note func(vm.Event)) (vm.Image, error) {
		img, err := l.build(ctx, r, o, func(text string) {
			note(vm.Event{Kind: "note", Name: o.Name, Stage: "image", Text: text})
		})
		if err != nil {
			return vm.Image{}, buildError(o.Name, l.cfg.Dir, err)
		}
		return img, nil
	})
}

// build makes, publishes and records one image. Whatever happens, its staging directory is gone when it returns.
func (l *Library) build(ctx context.Context, r recipe, o BuildOptions, step func(string)) (img vm.Image, err error) {
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
	var tmp, tree, out = filepath.Join(stage, "tmp"), filepath.Join(stage, "tree"), filepath.Join(stage, "out")
	for _, dir := range []string{tmp, tree, out} {
		if err := act.Do(ctx, "staging.directory", func() error { return os.Mkdir(dir, 0o755) }); err != nil {
			return vm.Image{}, err
		}
	}
	var digest string
	err = act.Do(ctx, "staging.tree", func() (err error) {
		digest, err = l.fill(ctx, r, o.Mirror, tmp, tree, step)
		return err
	})
	if err != nil {
		return vm.Image{}, err
	}
	img = vm.Image{
		Name: o.Name, Digest: digest, CreatedAt: time.Now().UTC().Truncate(time.Millisecond),
		Env: []string{"LANG=C.UTF-8"}, Source: r.source(),
	}
	if img.Init, err = initOf(tree); err != nil {
		return vm.Image{}, err
	}
	step("making the root disk")
	root := filepath.Join(out, rootFile)
	if err := act.Do(ctx, "staging.root", func() error { return l.tools.format(ctx, tree, root) }); err != nil {
		return vm.Image{}, err
	}
	if err := finish(ctx, root, out, &img); err != nil {
		return vm.Image{}, err
	}
	return img, l.publish(ctx, out, img)
}

// fill bootstraps the tree and returns the digest of the tar stream, which is never a file.
func (l *Library) fill(ctx context.Context, r recipe, mirror, tmp, tree string, step func(string)) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hash := sha256.New()
	pr, pw := io.Pipe()
	var both sync.WaitGroup
	// When one side fails the other does too, because of it: the cause that is set first is the error to tell.
	both.Go(func() {
		err := l.tools.bootstrap(ctx, r, mirror, tmp, io.MultiWriter(hash, pw), step)
		if err != nil {
			cancel(err)
		}
		_ = pw.CloseWithError(err)
	})
	both.Go(func() {
		err := l.tools.unpack(ctx, pr, tree)
		if err == nil {
			_, err = io.Copy(io.Discard, pr) // tar stops at its end mark; the digest covers the padding as well
		}
		if err != nil {
			cancel(err)
		}
		_ = pr.CloseWithError(err)
	})
	both.Wait()
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	return digestPrefix + hex.EncodeToString(hash.Sum(nil)), nil
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
func (l *Library) publish(ctx context.Context, out string, img vm.Image) error {
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
		if err := file.Publish(ctx, "image", out, dir); err != nil {
			return err
		}
	}
	was, err := l.cfg.Records.ImageByName(ctx, img.Name)
	if err == nil || vm.CodeOf(err) == vm.CodeNotFound {
		err = l.cfg.Records.PutImage(ctx, img)
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
