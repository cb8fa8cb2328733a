package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vm"
)

func TestDelete(t *testing.T) {
	l, rows := newLibrary(t)
	var pinErr error
	l.Pinned = func(context.Context) ([]string, error) { return nil, pinErr }
	one, other := plant(t, l, "1"), plant(t, l, "2")
	for name, digest := range map[string]string{"one": one, "also": one, "other": other} {
		if err := rows.PutKernel(t.Context(), vm.Kernel{Name: name, Digest: digest}); err != nil {
			t.Fatal(err)
		}
	}
	cached := func(digest string) string {
		return filepath.Join(l.InitramfsDir, digest[len("sha256:"):][:16]+"-"+l.guestKey()+".img")
	}
	if err := errors.Join(os.MkdirAll(l.InitramfsDir, 0o755), os.WriteFile(cached(one), nil, 0o600), os.WriteFile(cached(other), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	dir := func(digest string) string { return filepath.Join(l.Dir, strings.TrimPrefix(digest, "sha256:")) }
	deletes := func(name string, code vm.Code, words ...string) {
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
	for _, bad := range []string{"none", "", "../one", one} {
		deletes(bad, vm.CodeNotFound, "delete kernel "+bad+": there is none of that name", "banger kernel list")
	}
	rows.users = map[string][]string{one: {"web", "db"}}
	deletes("one", vm.CodeConflict, "delete kernel one: VMs boot from it: web and db; delete these VMs first")
	rows.users = nil
	pinErr = vm.Errorf(vm.CodeConflict, "2 VM directories have no row").WithHint("see doctor")
	deletes("one", vm.CodeConflict, "delete kernel one: find the kernels of VMs: 2 VM directories have no row; see doctor")
	pinErr = nil
	k, release, err := l.Use(t.Context(), "one", nil)
	if err != nil || k.Digest != one {
		t.Fatalf("%+v, %v", k, err)
	}
	deletes("also", vm.CodeConflict, "a VM is being created with it", "try again")
	release()
	if k, release, err = l.Hold(t.Context(), "one"); err != nil || k.Digest != one {
		t.Fatalf("%+v, %v", k, err)
	}
	deletes("also", vm.CodeConflict, "KVM is being tried with it", "try again")
	release()
	if !there(dir(one)) || !there(cached(one)) || len(rows.rows) != 3 {
		t.Fatalf("a refusal removed something: %v", rows.rows)
	}

	deletes("one", "")
	if !there(dir(one)) || !there(cached(one)) {
		t.Error("its files are gone, and another name has them")
	}
	deletes("one", vm.CodeNotFound)
	deletes("also", "")
	if there(dir(one)) || there(cached(one)) || !there(dir(other)) || !there(cached(other)) {
		t.Error("the wrong files are gone")
	}
	if err := os.RemoveAll(dir(other)); err != nil { // by hand: its name can be deleted all the same
		t.Fatal(err)
	}
	deletes("other", "")
	if err := rows.PutKernel(t.Context(), vm.Kernel{Name: "bad", Digest: "sha256:../" + strings.Repeat("1", 61)}); err != nil {
		t.Fatal(err)
	}
	deletes("bad", "") // what names no directory of a kernel leads to none
	if left, err := os.ReadDir(l.Dir); err != nil || len(left) != 0 || len(rows.rows) != 0 {
		t.Errorf("left %v, %v, %v", left, rows.rows, err)
	}
	if _, _, err := l.Use(t.Context(), "one", nil); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("used when it is gone: %v", err)
	}
	if _, _, err := l.Hold(t.Context(), vm.DefaultKernel); vm.CodeOf(err) != vm.CodeNotFound || len(rows.rows) != 0 {
		t.Errorf("held when it is not there: %v; %v", err, rows.rows)
	}
}

// An import that finds its files there already must not lose them before it has its row.
func TestDeleteBesideAnImportOfTheSame(t *testing.T) {
	needDepmod(t)
	l, rows := newLibrary(t)
	deb := writeTemp(t, "k.deb", testDeb(t, "zstd", testControl, testFiles(t)))
	if _, err := l.Import(t.Context(), "one", deb, nil); err != nil {
		t.Fatal(err)
	}
	var deleted error
	rows.putting = func() { deleted = l.Delete(t.Context(), "one", "") }
	two, err := l.Import(t.Context(), "two", deb, nil)
	if err != nil || vm.CodeOf(deleted) != vm.CodeConflict || l.check(two.Digest) != nil {
		t.Errorf("import: %v; delete beside it: %v; %v", err, deleted, l.check(two.Digest))
	}
	if err := l.Delete(t.Context(), "one", ""); err != nil || l.check(two.Digest) != nil {
		t.Errorf("afterwards: %v; %v", err, l.check(two.Digest))
	}
}
