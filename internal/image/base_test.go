package image

import (
	"context"
	"errors"
	"strings"
	"testing"

	"banger/internal/vm"
)

func TestBuildBase(t *testing.T) {
	l, b, m := newTest(t)
	l.cfg.Pinned = func(context.Context) ([]string, error) { return nil, nil }
	base := func(o BuildOptions, script string) Base {
		t.Helper()
		got, err := l.BuildBase(t.Context(), o, script, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	o := BuildOptions{Recipe: vm.DefaultImage, Name: "app", Packages: []string{"git"}}
	fresh := base(o, "one")
	if fresh.Image.Name != "" || fresh.Image.Source != "mmdebstrap bookworm with git" || fresh.Adopt.Name != "app" || fresh.Adopt.What != "build image app" ||
		!strings.HasPrefix(fresh.Adopt.Source, "mmdebstrap bookworm with git, and script ") || len(fresh.Adopt.Source) > 60 {
		t.Errorf("%+v", fresh)
	}
	// It has no name, and is there as long as it is held.
	if err := l.Sweep(t.Context(), fresh.Image.Digest); err != nil || len(m.images) != 0 || len(ls(t, l.cfg.Dir)) != 1 {
		t.Errorf("held: %v, %v, %q", err, m.images, ls(t, l.cfg.Dir))
	}
	fresh.Release()
	if err := l.Sweep(t.Context(), fresh.Image.Digest); err != nil || len(ls(t, l.cfg.Dir)) != 0 {
		t.Errorf("released: %v, %q", err, ls(t, l.cfg.Dir))
	}

	plain, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage}, nil)
	if err != nil {
		t.Fatal(err)
	}
	builds := b.builds.Load()
	o.Packages = nil
	same := base(o, "one")
	if same.Image.Digest != plain.Digest || same.Image.Name != "" || b.builds.Load() != builds {
		t.Errorf("one of these packages is there: %+v, built %d times", same, b.builds.Load()-builds)
	}
	deletes(t, l, vm.DefaultImage, vm.CodeConflict, "a VM is being created from it")
	same.Release()

	m.images["app"] = vm.Image{Name: "app", Digest: plain.Digest, Source: same.Adopt.Source}
	if there := base(o, "one"); there.Release != nil || there.Image.Name != "app" {
		t.Errorf("made by the same script already: %+v", there)
	}
	if _, err := l.BuildBase(t.Context(), o, "two", nil); vm.CodeOf(err) != vm.CodeExists {
		t.Errorf("another script: %v", err)
	}
	o.Force = true
	b.content.Store("newer")
	forced := base(o, "one")
	if forced.Release == nil || !forced.Adopt.Force || b.builds.Load() != builds+1 || forced.Image.Digest == plain.Digest {
		t.Errorf("forced: %+v, built %d times", forced, b.builds.Load()-builds)
	}
	forced.Release()
	if err := l.Sweep(t.Context(), forced.Image.Digest); err != nil || len(ls(t, l.cfg.Dir)) != 1 {
		t.Errorf("%v, left %q", err, ls(t, l.cfg.Dir))
	}
	b.unpackErr = errors.New("boom")
	if _, err := l.BuildBase(t.Context(), o, "one", nil); !errors.Is(err, b.unpackErr) || len(ls(t, l.cfg.Dir)) != 1 {
		t.Errorf("%v, left %q", err, ls(t, l.cfg.Dir))
	}
	if _, err := l.BuildBase(t.Context(), BuildOptions{Recipe: "none", Name: "app"}, "one", nil); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("unknown recipe: %v", err)
	}
}

// Whoever takes a grip that was let go already has nothing.
func TestGrip(t *testing.T) {
	for _, gone := range []bool{true, false} {
		l, _, _ := newTest(t)
		g := &grip{}
		if gone {
			g.drop()
		}
		if err := g.take(t.Context(), l, "sha256:x"); (err != nil) != gone {
			t.Errorf("gone %v: %v", gone, err)
		}
		done, free := l.uses.Take("sha256:x")
		if free != gone {
			t.Errorf("gone %v: free %v", gone, free)
		}
		if free {
			done()
		}
		g.drop()
		g.drop()
		if _, free := l.uses.Take("sha256:x"); !free {
			t.Errorf("gone %v: held for ever", gone)
		}
	}
}
