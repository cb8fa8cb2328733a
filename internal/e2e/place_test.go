package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// driversVar names, in the environment, the VMM, disk and network that VMs must have where nothing is asked for, as
// "firecracker dmsnap bridge": tests on another than they are meant for would pass and show nothing.
const driversVar = "BANGER_TEST_DRIVERS"

// expectDrivers fails the test where "auto" does not choose what the environment says.
func (b *box) expectDrivers() {
	b.t.Helper()
	want := os.Getenv(driversVar)
	if want == "" {
		return
	}
	b.t.Cleanup(func() { _, _, _ = b.run(nil, "vm", "delete", "which") })
	b.ok("vm", "create", "--name", "which")
	v := b.show("which")
	if got := strings.Join([]string{v.VMM, v.Disk, v.Network}, " "); got != want {
		b.t.Fatalf("VMs here have %s, %s says %s\n%s", got, driversVar, want, b.ok("vm", "show", "which"))
	}
	b.ok("vm", "delete", "which")
}

// as fails the test where a VM has another VMM than the environment says, whatever else it was made with, or another disk
// or network where it was not made with one of its own.
func (b *box) as(r vm.VMRecord) {
	b.t.Helper()
	want := strings.Fields(os.Getenv(driversVar))
	if len(want) == 0 {
		return
	}
	if r.Spec.Disk != "auto" {
		want[1] = r.Disk
	}
	if r.Spec.Network != "auto" {
		want[2] = r.Network
	}
	if got := []string{r.VMM, r.Disk, r.Network}; !slices.Equal(got, want) {
		b.t.Errorf("%s has %s, %s says %s", r.Name, got, driversVar, want)
	}
}

// nothingIsLeft compares all of the host before and after the test, where nobody else uses it. testhost.Leaks sees only
// what names the test's directory, and a VMM in its jail, a tap and a bridge do not.
func nothingIsLeft(t testing.TB) {
	t.Helper()
	if !testhost.Alone() {
		return
	}
	before, err := testhost.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		after, err := testhost.Take()
		if err != nil {
			t.Fatal(err)
		}
		left := slices.DeleteFunc(after.Minus(before), func(i testhost.Item) bool { return !ours(i) })
		if len(left) > 0 {
			t.Errorf("left on the host:\n%s", testhost.Diff(nil, left))
		}
	})
}

// ours says whether an item is of a kind that banger makes. The lab's own systemd starts programs now and then.
func ours(i testhost.Item) bool {
	switch i.Kind {
	case "process":
		return strings.Contains(i.Text, "firecracker") || strings.Contains(i.Text, "jailer") || strings.Contains(i.Text, "qemu-system") || strings.Contains(i.Text, "banger")
	case "socket":
		return strings.Contains(i.Text, "banger")
	}
	return true
}
