package daemon

import (
	"context"
	"path/filepath"
	"slices"

	"banger/internal/store"
	"banger/internal/vm"
)

// pinned guards a list of what VMs stand on: it is whole only when each VM directory in vms has its row. A database that
// was moved away lists nothing, while disks of VMs still stand on images; then the list fails with vm.CodeConflict, and
// nobody removes by it.
func pinned(db *store.Store, vms string, list func(context.Context) ([]string, error)) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) {
		dirs, err := vmDirs(vms)
		if err != nil {
			return nil, err
		}
		records, err := db.VMs(ctx)
		if err != nil {
			return nil, err
		}
		var orphans []string
		for _, id := range dirs {
			if !slices.ContainsFunc(records, func(r vm.VMRecord) bool { return string(r.ID) == id }) {
				orphans = append(orphans, id)
			}
		}
		if len(orphans) > 0 {
			return nil, vm.Errorf(vm.CodeConflict, "%d VM directories have no row in the database, the first is %s",
				len(orphans), filepath.Join(vms, orphans[0])).WithHint("banger doctor names them all; what they may stand on is kept until they are gone")
		}
		return list(ctx)
	}
}

// usersOf lists the names of the VMs that run under a VMM, or will when they are started.
func usersOf(db *store.Store, vmmName string) func(context.Context) ([]string, error) {
	return func(ctx context.Context) (names []string, err error) {
		records, err := db.VMs(ctx)
		for _, r := range records {
			if r.VMM == vmmName {
				names = append(names, r.Name)
			}
		}
		return names, err
	}
}
