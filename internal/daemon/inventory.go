package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"banger/internal/host/cgroup"
	"banger/internal/host/file"
	"banger/internal/inventory"
	"banger/internal/inventory/places"
	"banger/internal/paths"
	"banger/internal/vm"
)

// sourcesOf are all that make objects on the host: every driver, the given libraries, and what has no driver.
// A driver that is no inventory.Source is an error of the program, which a test finds.
func sourcesOf(d Drivers, cgroups cgroup.Tree, began time.Time, libraries ...inventory.Source) (all []inventory.Source, err error) {
	add := func(what string, driver any) {
		s, ok := driver.(inventory.Source)
		if !ok {
			err = fmt.Errorf("%s does not say what it makes on the host: it is no inventory.Source", what)
			return
		}
		all = append(all, s)
	}
	for _, x := range d.VMMs {
		add("VMM driver "+x.Name(), x)
	}
	for _, x := range d.Disks {
		add("disk driver "+x.Name(), x)
	}
	for _, x := range d.Networks {
		add("network driver "+x.Name(), x)
	}
	return append(append(all, libraries...), places.Source{Cgroups: cgroups, Began: began}), err
}

func placeOf(p paths.Paths) inventory.Place {
	return inventory.Place{Root: p.Root, State: p.State, Run: p.Run, Cache: p.Cache, VMs: p.VMs(), Images: p.Images()}
}

func keeperOf(p paths.Paths, sources []inventory.Source, records func(context.Context) ([]vm.VMRecord, error), sweep func(context.Context, vm.ID) error) *inventory.Keeper {
	var kinds []inventory.Kind
	for _, s := range sources {
		kinds = append(kinds, s.Kinds(placeOf(p))...)
	}
	return inventory.New(inventory.Config{
		Kinds: kinds, Records: records, Sweep: sweep,
		Born: func() time.Time { return file.Born(p.Database()) },
	})
}

// anothers says why a database was not written by a daemon of this root: it has VMs elsewhere. A copied root has the
// original's rows, and what it takes for its own may be the original's.
func anothers(p paths.Paths, all []vm.VMRecord) string {
	for _, r := range all {
		dir := r.Runtime.VMDir
		if dir == "" || dir == p.VMDir(r.ID) || same(filepath.Dir(dir), p.VMs()) {
			continue
		}
		return fmt.Sprintf("the database is another root's, or this one was moved or copied: VM %s has its directory at %s, and not in %s", r.Name, dir, p.VMs())
	}
	return ""
}

// same says whether two paths lead to one directory.
func same(a, b string) bool {
	x, err := filepath.EvalSymlinks(a)
	y, err2 := filepath.EvalSymlinks(b)
	return err == nil && err2 == nil && x == y
}
