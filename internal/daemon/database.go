package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// openDatabase opens the store of p. A row is there before its VM's directory: where there are directories, a database
// that is missing or empty was lost, and a new one would make orphans of VMs that run.
func openDatabase(ctx context.Context, p paths.Paths) (*store.Store, error) {
	fi, err := os.Stat(p.Database())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at the database: %w", err)
	}
	if err == nil && fi.Size() > 0 {
		return store.Open(ctx, p.Database())
	}
	what := "is empty"
	if err != nil {
		what = "is missing"
	}
	dirs, err := vmDirs(p.VMs())
	if err != nil {
		return nil, err
	}
	if len(dirs) > 0 {
		return nil, vm.Errorf(vm.CodeCorrupt, "database %s %s, but %s has directories of %d VMs, the first is %s",
			p.Database(), what, p.VMs(), len(dirs), dirs[0]).
			WithHint("nothing was changed; restore the database from a backup, or, to begin anew, move %s away (and %s and %s, if the disks in it are still of use: they stand on these)",
				p.VMs(), filepath.Base(p.Images()), filepath.Base(p.Kernels()))
	}
	return store.Open(ctx, p.Database())
}

// vmDirs lists the names in vms that are ids of VMs; none when there is no such directory.
func vmDirs(vms string) ([]string, error) {
	entries, err := os.ReadDir(vms)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the directories of VMs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if _, err := vm.ParseID(e.Name()); err == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// checkOurs refuses the rows of another root: a copied one has the original's. Its VMs' processes and disks are where the rows
// say, and a daemon that acted by them would take over the original's machines, or end them and delete their disks.
func checkOurs(ctx context.Context, p paths.Paths, db *store.Store) error {
	all, err := db.SharedVMs(ctx)
	if err != nil {
		return err
	}
	if why := anothers(p, all); why != "" {
		return vm.Errorf(vm.CodeConflict, "serve %s: %s", p.Root, why).
			WithHint("no VM was touched; move the root back to where it was, or make its old path a link to it. A copy's VMs are the original's: take files out of it, but run none")
	}
	return nil
}
