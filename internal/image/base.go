package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"banger/internal/vm"
)

// Base is what a script is run on.
type Base struct {
	Image   vm.Image // has no name
	Release func()   // until it is called, once, nobody deletes the image; nil where the script need not be run
	Adopt   AdoptOptions
}

// BuildBase makes sure of the image that a script makes o of: one that is made of the same packages, whatever its name, or a new
// one without a name, which goes when nobody has it any more. Adopt is how what the script has made becomes o. Where o is there
// already, made by the same script of the same packages, it is returned, without Release. Errors are Build's.
func (l *Library) BuildBase(ctx context.Context, o BuildOptions, script string, report vm.Report) (b Base, err error) {
	r, err := l.recipeOf(ctx, &o)
	if err != nil {
		return Base{}, err
	}
	b.Adopt = AdoptOptions{
		What: "build image " + o.Name, Name: o.Name, Force: o.Force, Env: buildEnv(),
		Source: fmt.Sprintf("%s, and script %.6x", r.source(), sha256.Sum256([]byte(script))),
	}
	if !o.Force {
		there, err := l.built(ctx, o.Name, b.Adopt.Source)
		if err != nil || there.Digest != "" {
			return Base{Image: there}, err
		}
		if b.Image, b.Release, err = l.like(ctx, r.source()); err != nil || b.Release != nil {
			return b, err
		}
	}
	if err := l.tools.ready(kindExt4); err != nil {
		return Base{}, fmt.Errorf("%s: %w", b.Adopt.What, err)
	}
	g := &grip{}
	record := func(ctx context.Context, img vm.Image) error { return g.take(ctx, l, img.Digest) }
	// Nobody shares it: whoever comes second would have no hold.
	if b.Image, err = l.flyBuild(ctx, r, o, fmt.Sprintf("%s's base %p", o.Name, g), record, report); err != nil {
		g.drop()
		if g.digest != "" {
			_ = l.Sweep(context.WithoutCancel(ctx), g.digest) // or Reconcile does
		}
		return Base{}, err
	}
	b.Image.Name, b.Release = "", g.drop
	return b, nil
}

// grip is a hold of what is being built, whose builder may have gone when it is taken.
type grip struct {
	mu      sync.Mutex
	digest  string
	release func()
	dropped bool
}

// take stands for the record of an image: it is held instead.
func (g *grip) take(ctx context.Context, l *Library, digest string) error {
	release, err := l.uses.Hold(ctx, digest)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dropped {
		release()
		return context.Canceled
	}
	g.digest, g.release = digest, release
	return nil
}

func (g *grip) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.release != nil && !g.dropped {
		g.release()
	}
	g.dropped = true
}

// like finds an image by how it was made, and holds it; release is nil where there is none.
func (l *Library) like(ctx context.Context, source string) (img vm.Image, release func(), err error) {
	all, err := l.cfg.Records.Images(ctx)
	if err != nil {
		return vm.Image{}, nil, err
	}
	for _, i := range all {
		if i.Source != source {
			continue
		}
		if release, err = l.uses.Hold(ctx, i.Digest); err != nil {
			return vm.Image{}, nil, err
		}
		if now, err := l.present(ctx, i.Name); err == nil && now.Digest == i.Digest {
			i.Name = ""
			return i, release, nil
		}
		release()
	}
	return vm.Image{}, nil, nil
}
