package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync"

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
	ready     func(k kind) error
	settle    func(ctx context.Context, root string, cleared bool) (init string, err error)
	remove    func(ctx context.Context, stage string) error
}

func hostTools() tools {
	return tools{bootstrap: bootstrap, unpack: unpack, format: format, ready: ready, settle: settle, remove: remove}
}

// Build makes an image. One that is there and was built with the same packages is returned as it is, unless forced;
// with others the error is vm.CodeExists. Callers of one name share one build, which ends when the last of them goes.
//
// report gets the stage "image" and a note for each part of the work. Errors: vm.CodeNotFound (no such recipe),
// CodeInvalid (packages, mirror), CodeMissing (mmdebstrap, keys), CodeNoSpace, CodeConflict (being built otherwise).
func (l *Library) Build(ctx context.Context, o BuildOptions, report vm.Report) (vm.Image, error) {
	r, err := l.recipeOf(ctx, &o)
	if err != nil {
		return vm.Image{}, err
	}
	if !o.Force {
		if img, err := l.built(ctx, o.Name, r.source()); err != nil || img.Digest != "" {
			return img, err
		}
	}
	return l.flyBuild(ctx, r, o, o.Name, l.cfg.Records.PutImage, report)
}

// recipeOf completes o, refuses what can be refused of it, and returns the recipe with all of its packages.
func (l *Library) recipeOf(ctx context.Context, o *BuildOptions) (recipe, error) {
	if o.Recipe == "" {
		o.Recipe = o.Name
	}
	if o.Name == "" {
		o.Name = o.Recipe
	}
	r, ok := recipeNamed(o.Recipe)
	if !ok {
		return recipe{}, vm.Errorf(vm.CodeNotFound, "no recipe is named %q", o.Recipe).WithHint("%s", l.known(ctx, ""))
	}
	if err := l.names().CheckName(o.Name); err != nil {
		return recipe{}, err
	}
	r = r.with(l.cfg.Packages...).with(o.Packages...)
	if o.Mirror == "" {
		o.Mirror = l.cfg.Mirror
	}
	return r, errors.Join(validatePackages(r.packages), validateMirror(o.Mirror))
}

// built returns the image of that name if it was made so; none where there is none (vm.CodeExists where it was made otherwise).
func (l *Library) built(ctx context.Context, name, source string) (vm.Image, error) {
	img, err := l.present(ctx, name)
	switch {
	case err == nil && img.Source != source:
		return vm.Image{}, vm.Errorf(vm.CodeExists, "image %s exists: %s", name, img.Source).WithHint("--force builds it anew; VMs keep the old one")
	case vm.CodeOf(err) == vm.CodeNotFound:
		return vm.Image{}, nil
	}
	return img, err
}

// flyBuild builds an image that is not there, or anew, one at a time of what flight names. record keeps it.
func (l *Library) flyBuild(ctx context.Context, r recipe, o BuildOptions, flight string, record func(context.Context, vm.Image) error, report vm.Report) (img vm.Image, err error) {
	end := report.Stage(vm.Event{Name: o.Name}, "image")
	defer func() { end(err) }()
	want := r.source()
	if o.Mirror != "" {
		want += " from " + o.Mirror
	}
	return l.fly(ctx, flight, want, report, func(ctx context.Context, note func(vm.Event)) (vm.Image, error) {
		step := func(text string) { note(vm.Event{Kind: "note", Name: o.Name, Stage: "image", Text: text}) }
		img, err := l.build(ctx, r, o, record, step)
		if err != nil {
			return vm.Image{}, explain("build image "+o.Name, l.cfg.Dir, err)
		}
		return img, nil
	})
}

// buildEnv is what commands in a VM of an image of Debian packages find in their environment.
func buildEnv() []string { return []string{"LANG=C.UTF-8"} }

// build makes, publishes and records one image.
func (l *Library) build(ctx context.Context, r recipe, o BuildOptions, record func(context.Context, vm.Image) error, step func(string)) (vm.Image, error) {
	img := vm.Image{Name: o.Name, Env: buildEnv(), Source: r.source()}
	return l.make(ctx, img, record, func(ctx context.Context, s *staged) error {
		tmp, err := s.directory(ctx, "tmp")
		if err != nil {
			return err
		}
		return l.fromTree(ctx, s, step, func(tree string) (string, error) { return l.fill(ctx, r, o.Mirror, tmp, tree, step) })
	})
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
