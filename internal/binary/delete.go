package binary

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/act"
	"banger/internal/host/file"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Delete removes an installed version. VMs that run keep what they have open. vm.CodeNotFound when it is not installed,
// vm.CodeConflict when config.toml names it, or when VMs would be started with it.
func (l *Library) Delete(ctx context.Context, name, version string) error {
	if err := known(name); err != nil {
		return err
	}
	version = strings.TrimPrefix(version, "v")
	what := name + " " + version
	if !versionPattern.MatchString(version) {
		return vm.Errorf(vm.CodeInvalid, "delete %s: %q is not a version", name, version).WithHint("banger vmm list shows those that are installed")
	}
	dir := l.versionDir(version)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return vm.Errorf(vm.CodeNotFound, "delete %s: it is not installed", what).WithHint("banger vmm list shows what is")
	} else if err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	if err := l.unused(ctx, dir); err != nil {
		return vm.Errorf(vm.CodeOf(err), "delete %s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	if err := l.remove(ctx, dir); err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	return nil
}

// unused says why the programs of a directory must stay.
func (l *Library) unused(ctx context.Context, dir string) error {
	for _, configured := range []struct{ key, path string }{{"binary", l.Binary}, {"jailer", l.Jailer}} {
		if configured.path == "" {
			continue
		}
		path := configured.path
		if p, err := l.Programs.Resolve(path); err == nil {
			path = p
		}
		for _, d := range []string{dir, inventory.Plain(dir)} {
			if filepath.Dir(path) == d || filepath.Dir(configured.path) == d {
				return vm.Errorf(vm.CodeConflict, "config.toml names it ([%s] %s = %q)", Name, configured.key, configured.path).
					WithHint("take it out there and run 'banger daemon stop' first")
			}
		}
	}
	used, jailer, err := l.Locate()
	if err != nil || filepath.Dir(used) != dir && filepath.Dir(jailer) != dir {
		return nil // what no VM would be started with
	}
	if l.Users == nil {
		return nil
	}
	users, err := l.Users(ctx)
	if err != nil {
		return fmt.Errorf("find the VMs that it starts: %w", err)
	}
	if len(users) == 0 {
		return nil
	}
	return vm.Errorf(vm.CodeConflict, "VMs are started with it: %s", inventory.Names(users)).
		WithHint("delete these VMs first, or install a newer version, which they are started with then: banger vmm install --version VERSION %s", Name)
}

// remove takes a version away in one step, so that no half of one can be run, and then deletes it.
func (l *Library) remove(ctx context.Context, dir string) error {
	defer l.making.Begin()()
	var staging string
	err := act.Do(ctx, "staging", func() (err error) {
		staging, err = os.MkdirTemp(l.Dir, stagingPrefix)
		return err
	})
	if err != nil {
		return err
	}
	err = act.Do(ctx, "vmm.remove", func() error { return os.Rename(dir, filepath.Join(staging, filepath.Base(dir))) })
	if err == nil {
		err = file.SyncDir(filepath.Dir(dir))
	}
	return errors.Join(err, act.Do(context.WithoutCancel(ctx), "staging.remove", func() error { return os.RemoveAll(staging) })) // or Reconcile does
}
