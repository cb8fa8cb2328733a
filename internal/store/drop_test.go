package store

import (
	"context"
	"errors"
	"slices"
	"testing"

	"banger/internal/vm"
)

// A name goes unless a VM, in whatever state, is of its digest; whose last name it was is told.
func TestDeleteImageAndKernel(t *testing.T) {
	s, ctx := open(t), t.Context()
	err := errors.Join(
		s.PutImage(ctx, vm.Image{Name: "one", Digest: "sha256:aa"}), s.PutImage(ctx, vm.Image{Name: "two", Digest: "sha256:cc"}), s.PutImage(ctx, vm.Image{Name: "too", Digest: "sha256:cc"}),
		s.PutKernel(ctx, vm.Kernel{Name: "one", Digest: "sha256:bb"}), s.PutKernel(ctx, vm.Kernel{Name: "two", Digest: "sha256:dd"}), s.PutKernel(ctx, vm.Kernel{Name: "too", Digest: "sha256:dd"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	for id, name := range map[vm.ID]string{"000000000001": "web", "000000000002": "db"} {
		if _, err := s.CreateVM(ctx, record(id, name)); err != nil {
			t.Fatal(err)
		}
	}
	for kind, c := range map[string]struct {
		used   string
		unused string
		drop   func(context.Context, string, string) ([]string, bool, error)
		names  func() (names []string)
	}{
		"image": {"sha256:aa", "sha256:cc", s.DeleteImage, func() (names []string) {
			all, _ := s.Images(ctx)
			for _, i := range all {
				names = append(names, i.Name)
			}
			return names
		}},
		"kernel": {"sha256:bb", "sha256:dd", s.DeleteKernel, func() (names []string) {
			all, _ := s.Kernels(ctx)
			for _, k := range all {
				names = append(names, k.Name)
			}
			return names
		}},
	} {
		users, _, err := c.drop(ctx, "one", c.used)
		if slices.Sort(users); err != nil || !slices.Equal(users, []string{"db", "web"}) {
			t.Errorf("%s in use: %q, %v", kind, users, err)
		}
		for _, gone := range []string{c.used[:9] + "9", c.unused} { // it has another digest by now
			if _, _, err := c.drop(ctx, "one", gone); vm.CodeOf(err) != vm.CodeConflict {
				t.Errorf("%s of another digest: %v", kind, err)
			}
		}
		if got := c.names(); !slices.Equal(got, []string{"one", "too", "two"}) {
			t.Errorf("%s: a refusal left %q", kind, got)
		}
		for _, step := range []struct {
			name string
			last bool
		}{{"two", false}, {"too", true}} {
			users, last, err := c.drop(ctx, step.name, c.unused)
			if err != nil || len(users) > 0 || last != step.last {
				t.Errorf("%s %s: %q, last %v, %v", kind, step.name, users, last, err)
			}
		}
		if _, _, err := c.drop(ctx, "too", c.unused); vm.CodeOf(err) != vm.CodeConflict {
			t.Errorf("%s that is gone: %v", kind, err)
		}
		if got := c.names(); !slices.Equal(got, []string{"one"}) {
			t.Errorf("%s: left %q", kind, got)
		}
	}
}
