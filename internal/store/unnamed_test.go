package store

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

// A digest is unnamed from its announcement until it has a name, and again when it has lost its last one, by whatever way.
func TestUnnamed(t *testing.T) {
	s, ctx := open(t), t.Context()
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	is := func(when string, u Unnamed, want ...string) {
		t.Helper()
		got, err := u.All(ctx)
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", when, got, err, want)
		}
	}
	images, kernels := s.UnnamedImages(), s.UnnamedKernels()
	must(t, images.Add(ctx, a))
	must(t, kernels.Add(ctx, a))
	must(t, kernels.Add(ctx, b))
	is("announced", images, a)
	must(t, s.AddImage(ctx, vm.Image{Name: "one", Digest: a}))
	must(t, s.AddKernel(ctx, vm.Kernel{Name: "one", Digest: a}))
	is("named", images)
	is("named", kernels, b)
	must(t, images.Add(ctx, a))
	is("announced again, with a name", images)
	must(t, s.AddImage(ctx, vm.Image{Name: "two", Digest: a}))
	must(t, s.PutImage(ctx, vm.Image{Name: "one", Digest: b}))
	is("one name moved, another has it", images)
	must(t, s.PutImage(ctx, vm.Image{Name: "two", Digest: b}))
	must(t, s.PutKernel(ctx, vm.Kernel{Name: "one", Digest: b}))
	is("the last name moved", images, a)
	is("the last name moved", kernels, a)
	_, _, err := s.DeleteImage(ctx, "one", b)
	must(t, err)
	is("one of two names deleted", images, a)
	_, _, err = s.DeleteImage(ctx, "two", b)
	must(t, err)
	_, _, err = s.DeleteKernel(ctx, "one", b)
	must(t, err)
	is("the last name deleted", images, a, b)
	is("the last name deleted", kernels, a, b)
	must(t, images.Drop(ctx, a))
	is("dropped", images, b)
	is("an image dropped", kernels, a, b)
}
