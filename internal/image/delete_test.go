package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

// deletes tells what Delete of name has to answer; an empty code is success.
func deletes(t *testing.T, l *Library, name string, code vm.Code, words ...string) {
	t.Helper()
	err := l.Delete(t.Context(), name, "")
	if code == "" && err != nil || code != "" && (err == nil || vm.CodeOf(err) != code) {
		t.Errorf("%s: %v (code %s), want code %q", name, err, vm.CodeOf(err), code)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error()+"; "+vm.HintOf(err), w) {
			t.Errorf("%s: no %q in %v, hint %q", name, w, err, vm.HintOf(err))
		}
	}
}

func TestDelete(t *testing.T) {
	l, b, m := newTest(t)
	var pinErr error
	l.cfg.Pinned = func(context.Context) ([]string, error) { return nil, pinErr }
	build := func(name, content string) vm.Image {
		t.Helper()
		b.content.Store(content)
		img, err := l.Build(t.Context(), BuildOptions{Recipe: vm.DefaultImage, Name: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	one, other := build("one", "x"), build("other", "y")
	if also := build("also", "x"); also.Digest != one.Digest {
		t.Fatal("the same content has two digests")
	}
	dirs := []string{filepath.Base(l.dir(one.Digest)), filepath.Base(l.dir(other.Digest))}
	slices.Sort(dirs)

	for _, bad := range []string{"none", "", "..", "../one", one.Digest} {
		deletes(t, l, bad, vm.CodeNotFound, "delete image "+bad+": there is none of that name", "banger image list")
	}
	m.users = map[string][]string{one.Digest: {"web", "db"}}
	deletes(t, l, "one", vm.CodeConflict, "delete image one: VMs stand on it: web and db; delete these VMs first")
	m.users = nil
	pinErr = vm.Errorf(vm.CodeConflict, "2 VM directories have no row").WithHint("see doctor")
	deletes(t, l, "one", vm.CodeConflict, "delete image one: find the images of VMs: 2 VM directories have no row; see doctor")
	pinErr = nil
	used, release, err := l.Use(t.Context(), "one", nil)
	if err != nil || used.Digest != one.Digest {
		t.Fatalf("%+v, %v", used, err)
	}
	deletes(t, l, "one", vm.CodeConflict, "a VM is being created from it", "try again")
	deletes(t, l, "also", vm.CodeConflict, "a VM is being created from it")
	release()
	if got := ls(t, l.cfg.Dir); !slices.Equal(got, dirs) || len(m.images) != 3 {
		t.Fatalf("a refusal left %q and %v", got, m.images)
	}

	deletes(t, l, "one", "")
	if got := ls(t, l.cfg.Dir); !slices.Equal(got, dirs) {
		t.Errorf("another name has the files: %q", got)
	}
	deletes(t, l, "one", vm.CodeNotFound)
	if err := os.RemoveAll(l.dir(other.Digest)); err != nil { // by hand: its name can be deleted all the same
		t.Fatal(err)
	}
	deletes(t, l, "other", "")
	deletes(t, l, "also", "")
	if got := ls(t, l.cfg.Dir); len(got) != 0 || len(m.images) != 0 {
		t.Errorf("left %q, %v", got, m.images)
	}
	if _, _, err := l.Use(t.Context(), "one", nil); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("used when it is gone: %v", err)
	}
	if again := build("one", "x"); again.Digest != one.Digest {
		t.Errorf("built anew: %+v", again)
	}
}

// A row whose digest names no directory of an image leads to none: only the row goes.
func TestDeleteOfABadDigest(t *testing.T) {
	l, _, m := newTest(t)
	outside := filepath.Join(filepath.Dir(l.cfg.Dir), "outside")
	if err := errors.Join(os.MkdirAll(l.cfg.Dir, 0o755), os.Mkdir(outside, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"", "sha256:", "sha256:../outside"} {
		m.images["bad"] = vm.Image{Name: "bad", Digest: digest}
		deletes(t, l, "bad", "")
	}
	if _, err := os.Stat(outside); err != nil || len(m.images) != 0 {
		t.Errorf("%v, %v", err, m.images)
	}
}

// Files that cannot be removed are told of, and nobody's: the next start removes them.
func TestDeleteThatFailsHalfWay(t *testing.T) {
	l, _, m := newTest(t)
	l.cfg.Pinned = func(context.Context) ([]string, error) { return nil, nil }
	if _, err := l.Ensure(t.Context(), vm.DefaultImage, nil); err != nil {
		t.Fatal(err)
	}
	removes := l.tools.remove
	l.tools.remove = func(context.Context, string) error { return errors.New("boom") }
	deletes(t, l, vm.DefaultImage, vm.CodeInternal, "its name is gone, its files go when the daemon is started next: boom")
	if got := ls(t, l.cfg.Dir); len(got) != 1 || !strings.HasPrefix(got[0], stagePrefix) || len(m.images) != 0 {
		t.Errorf("left %q, %v", got, m.images)
	}
	l.tools.remove = removes
	if err := l.Reconcile(t.Context()); err != nil || len(ls(t, l.cfg.Dir)) != 0 {
		t.Errorf("%v, left %q", err, ls(t, l.cfg.Dir))
	}
}

// A build that finds its files there already must not lose them before it has its record.
func TestDeleteBesideABuildOfTheSame(t *testing.T) {
	l, _, m := newTest(t)
	one, err := l.Build(t.Context(), BuildOptions{Recipe: vm.DefaultImage, Name: "one"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	m.putting = func() {
		asked = true
		deletes(t, l, "one", vm.CodeConflict, "it is just being built")
	}
	two, err := l.Build(t.Context(), BuildOptions{Recipe: vm.DefaultImage, Name: "two"}, nil)
	if err != nil || two.Digest != one.Digest || !asked {
		t.Fatalf("%+v, %v, asked: %v", two, err, asked)
	}
	deletes(t, l, "one", "")
	if _, err := l.present(t.Context(), "two"); err != nil {
		t.Error(err)
	}
}
