package catalog

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"banger/internal/hold"
	"banger/internal/vm"
)

// shelf is what a catalog is of: names to digests, digests that lie there, VMs by digest.
type shelf struct {
	names map[string]string
	there map[string]bool
	vms   map[string][]string
	pins  error
	uses  hold.Set
	meant func() // called before a name is copied, if not nil
}

func newShelf() *shelf {
	return &shelf{names: map[string]string{"one": "a", "two": "b"}, there: map[string]bool{"a": true, "b": true}, vms: map[string][]string{}}
}

func (s *shelf) catalog() *Catalog {
	digest := func(_ context.Context, name string) (string, error) {
		if d, ok := s.names[name]; ok {
			return d, nil
		}
		none := vm.Errorf(vm.CodeNotFound, "no %s", name)
		if name == "onne" {
			return "", none.WithHint("did you mean one?")
		}
		return "", none
	}
	return &Catalog{
		Noun: "thing", Stand: "VMs stand on it", Busy: "it is held", Digest: digest, Uses: &s.uses,
		Users: func(_ context.Context, digest string) (names, vms []string, err error) {
			for _, n := range slices.Sorted(maps.Keys(s.names)) {
				if s.names[n] == digest {
					names = append(names, n)
				}
			}
			return names, s.vms[digest], nil
		},
		Drop: func(_ context.Context, name, digest string) ([]string, bool, error) {
			if users := s.vms[digest]; len(users) > 0 {
				return users, false, nil
			}
			delete(s.names, name)
			return nil, !slices.Contains(slices.Collect(maps.Values(s.names)), digest), nil
		},
		Copy: func(_ context.Context, from, digest, to string, move bool) error {
			if s.meant != nil {
				s.meant()
			}
			if _, taken := s.names[to]; taken && !move {
				return vm.Errorf(vm.CodeExists, "%s exists", to)
			}
			s.names[to] = digest
			return nil
		},
		Pinned:  func(context.Context) ([]string, error) { return slices.Collect(maps.Keys(s.vms)), s.pins },
		Claim:   func(string) func() { return func() {} },
		Discard: func(_ context.Context, digest string) error { delete(s.there, digest); return nil },
	}
}

// is tells what code and words err has to have; an empty code is success.
func is(t *testing.T, err error, code vm.Code, words string) {
	t.Helper()
	if (err == nil) != (code == "") || code != "" && (vm.CodeOf(err) != code || !strings.Contains(err.Error()+"; "+vm.HintOf(err), words)) {
		t.Errorf("%v (code %s, hint %q), want code %q with %q", err, vm.CodeOf(err), vm.HintOf(err), code, words)
	}
}

func TestTag(t *testing.T) {
	s, ctx := newShelf(), t.Context()
	c := s.catalog()
	is(t, c.Tag(ctx, "none", "new", false), vm.CodeNotFound, "tag thing none as new: there is none of that name; banger thing list")
	is(t, c.Tag(ctx, "onne", "new", false), vm.CodeNotFound, "tag thing onne as new: there is none of that name; did you mean one?")
	for _, bad := range []string{"", "../x", "Big", "x-", strings.Repeat("x", 64)} {
		is(t, c.Tag(ctx, "one", bad, true), vm.CodeInvalid, "not usable")
	}
	is(t, c.Tag(ctx, "one", "two", false), vm.CodeExists, "tag thing one as two: two exists; --force")
	for range 2 {
		is(t, c.Tag(ctx, "one", "also", false), "", "")
	}
	is(t, c.Tag(ctx, "one", "one", false), "", "")
	if want := map[string]string{"one": "a", "also": "a", "two": "b"}; !maps.Equal(s.names, want) || !s.there["b"] {
		t.Errorf("names %v, want %v; there %v", s.names, want, s.there)
	}
	s.meant = func() { is(t, c.Delete(ctx, "one", ""), vm.CodeConflict, "it is held") } // a digest that is about to have a name
	is(t, c.Tag(ctx, "one", "two", true), "", "")
	if s.names["two"] != "a" || s.there["b"] || !s.there["a"] {
		t.Errorf("moved: names %v, there %v: what nobody has any more is to go", s.names, s.there)
	}
}

func TestDeleteOnly(t *testing.T) {
	s, ctx := newShelf(), t.Context()
	c := s.catalog()
	is(t, c.Delete(ctx, "one", "b"), vm.CodeConflict, "delete thing one: it was replaced meanwhile")
	is(t, c.Delete(ctx, "one", "a"), "", "")
	if s.there["a"] || !s.there["b"] || len(s.names) != 1 {
		t.Errorf("there %v, names %v", s.there, s.names)
	}
}

// What a name or a VM has, what is held, and what may be a VM's of which no record tells, stays.
func TestSweep(t *testing.T) {
	s, ctx := newShelf(), t.Context()
	c := s.catalog()
	swept := func(digest string, want bool) {
		t.Helper()
		for range 2 {
			is(t, c.Sweep(ctx, digest), "", "")
		}
		if s.there[digest] == want {
			t.Errorf("swept %v, want %v", !want, want)
		}
	}
	swept("a", false)
	delete(s.names, "one")
	s.vms["a"] = []string{"web"}
	swept("a", false)
	delete(s.vms, "a")
	release, err := s.uses.Hold(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	swept("a", false)
	release()
	s.pins = vm.Errorf(vm.CodeConflict, "a directory has no row")
	swept("a", false)
	s.pins = errors.New("boom")
	is(t, c.Sweep(ctx, "a"), vm.CodeInternal, "boom")
	s.pins = nil
	c.Pinned = nil
	swept("a", false)
	c = s.catalog()
	swept("a", true)
}

func TestUnused(t *testing.T) {
	s, ctx := newShelf(), t.Context()
	s.vms["a"] = []string{"web"}
	unused, err := s.catalog().Unused(ctx)
	if err != nil || unused("a") || !unused("b") {
		t.Errorf("%v", err)
	}
	s.pins = vm.Errorf(vm.CodeConflict, "a directory has no row").WithHint("see doctor")
	_, err = s.catalog().Unused(ctx)
	is(t, err, vm.CodeConflict, "find the things of VMs: a directory has no row; see doctor")
}
