package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vm"
)

// What flags and configuration take is what there is.
func TestDriversAreThoseThatCanBeAskedFor(t *testing.T) {
	d, err := driversOf(paths.Under(t.TempDir()), config.Default(), kernel.New(kernel.Config{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	defer d.Programs.Close()
	same := func(what string, known []string, there []string) {
		if !slices.Equal(known, there) {
			t.Errorf("%s that can be asked for are %q, there are %q", what, known, there)
		}
	}
	var names []string
	for _, x := range d.VMMs {
		names = append(names, x.Name())
	}
	same("VMMs", vm.VMMDrivers(), names)
	names = nil
	for _, x := range d.Disks {
		names = append(names, x.Name())
	}
	same("disks", vm.DiskDrivers(), names)
	names = nil
	for _, x := range d.Networks {
		names = append(names, x.Name())
	}
	same("networks", vm.NetworkDrivers(), names)
}

// Two daemons know nothing of each other's users. Each begins elsewhere, as long as nobody says where they are.
func TestUsersOfSeveralDaemons(t *testing.T) {
	c := config.Default().Firecracker
	system, err := paths.System()
	if err != nil {
		t.Fatal(err)
	}
	if u := uidsOf(system, c); u.First != 900000 || u.Count != 10000 || u.Begin != 0 {
		t.Errorf("the host's own daemon: %+v", u)
	}
	begins := map[uint32]bool{}
	for i := range 100 {
		p := paths.Under(fmt.Sprintf("/srv/banger%d", i))
		u := uidsOf(p, c)
		if u.First != 900000 || u.Count != 10000 || u.Begin < u.First || u.Begin >= u.First+u.Count || u != uidsOf(p, c) {
			t.Errorf("%+v", u)
		}
		begins[u.Begin] = true
	}
	if len(begins) < 90 {
		t.Errorf("100 daemons begin at %d places", len(begins))
	}
	c.FirstUID, c.UIDs = 70000, 3
	if u := uidsOf(paths.Under("/srv/banger"), c); u.First != 70000 || u.Begin != 0 {
		t.Errorf("with first_uid: %+v", u)
	}
}
