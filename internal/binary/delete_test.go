package binary

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/inventory"
	"banger/internal/vm"
)

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestDelete(t *testing.T) {
	l := newLibrary(t, nil)
	install(t, l, "1.11.0")
	install(t, l, "1.12.0")
	old, used := l.versionDir("1.11.0"), l.versionDir("1.12.0")
	users, usersErr := []string{"web", "db", "a", "b"}, error(nil)
	l.Users = func(context.Context) ([]string, error) { return users, usersErr }
	refused := func(version string, code vm.Code, words ...string) {
		t.Helper()
		err := l.Delete(t.Context(), Name, version)
		if vm.CodeOf(err) != code {
			t.Errorf("%s: %v (code %s, want %s)", version, err, vm.CodeOf(err), code)
		}
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error()+vm.HintOf(err), w) {
				t.Errorf("%s: no %q in %v, hint %q", version, w, err, vm.HintOf(err))
			}
		}
	}
	refused("1.10.0", vm.CodeNotFound, "delete firecracker 1.10.0: it is not installed")
	for _, bad := range []string{"", "..", "../1.12.0", "1.12", "latest", "1.12.0/x"} {
		refused(bad, vm.CodeInvalid, "is not a version")
	}
	if err := l.Delete(t.Context(), "qemu", "7.2.0"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("qemu: %v", err)
	}
	refused("1.12.0", vm.CodeConflict, "web, db, a and 1 more", "delete these VMs first")
	usersErr = errors.New("the database is locked")
	refused("1.12.0", vm.CodeInternal, "the database is locked")
	usersErr = nil
	if !there(used) || !there(old) {
		t.Fatal("a refusal removed something")
	}

	// Of a version that no VM would be started with nobody need be asked; the other stays in use.
	if err := l.Delete(t.Context(), Name, "v1.11.0"); err != nil || there(old) || !there(used) {
		t.Errorf("1.11.0: %v", err)
	}
	refused("1.11.0", vm.CodeNotFound)

	// What config.toml names stays, by any path that leads there.
	link := filepath.Join(t.TempDir(), "fc")
	if err := os.Symlink(filepath.Join(used, "firecracker"), link); err != nil {
		t.Fatal(err)
	}
	users = nil
	for _, set := range []func(){
		func() { l.Binary = filepath.Join(used, "firecracker") }, func() { l.Binary = link }, func() { l.Jailer = filepath.Join(used, "jailer") },
	} {
		l.Binary, l.Jailer = "", ""
		set()
		refused("1.12.0", vm.CodeConflict, "config.toml names it")
	}
	l.Binary, l.Jailer = "", ""
	if err := os.WriteFile(filepath.Join(used, "firecracker"), nil, 0o600); err != nil { // a damaged one can be deleted as well
		t.Fatal(err)
	}
	if err := l.Delete(t.Context(), Name, "1.12.0"); err != nil || there(used) {
		t.Errorf("1.12.0: %v", err)
	}
	if left := below(t, l.Dir); len(left) > 1 { // "firecracker", the directory of versions
		t.Errorf("left %q", left)
	}
	if _, _, err := l.Locate(); vm.CodeOf(err) != vm.CodeMissing {
		t.Errorf("without any: %v", err)
	}
}

// What an install that died has left is listed, and not while one is under way.
func TestInventory(t *testing.T) {
	l := newLibrary(t, nil)
	left := filepath.Join(l.Dir, stagingPrefix+"1")
	install(t, l, "1.12.0")
	kept := l.versionDir("1.12.0")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	kind := l.Kinds(inventory.Place{})[0]
	end := l.making.Begin()
	if all, err := kind.List(t.Context()); err != nil || len(all) != 1 || all[0].Busy == "" {
		t.Errorf("beside an install: %+v, %v", all, err)
	}
	end()
	all, err := kind.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != left || all[0].Busy != "" || all[0].Proof == "" {
		t.Fatalf("%+v, %v", all, err)
	}
	for range 2 {
		if err := kind.Remove(t.Context(), all[0]); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) || !there(kept) {
		t.Errorf("%v", err)
	}
}
