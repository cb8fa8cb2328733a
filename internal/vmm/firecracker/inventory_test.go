package firecracker

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/inventory"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// Of processes that look alike only those with an API socket of this root are proven to be ours.
func TestInventory(t *testing.T) {
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	p := inventory.Place{Root: dir, Run: filepath.Join(dir, "run"), VMs: filepath.Join(dir, "vms")}
	const ours, theirs, jailed = vm.ID("00000000000a"), vm.ID("00000000000b"), vm.ID("00000000000c")
	const renamed, other = vm.ID("00000000000d"), vm.ID("00000000000e")
	impostor(t, "firecracker", "--id", string(ours), "--api-sock", filepath.Join(p.Sockets(ours), "api.sock"))
	impostor(t, "firecracker", "--id", string(theirs), "--api-sock", filepath.Join(dir, "run2", string(theirs), "api.sock"))
	impostor(t, "firecracker", "--id", "web", "--api-sock", filepath.Join(p.Run, "web", "api.sock"))
	impostor(t, "tail", "--id", string(other), "--api-sock", filepath.Join(dir, "run2", string(other), "api.sock"))
	impostor(t, "/opt/fc", "--id", string(renamed), "--api-sock", filepath.Join(p.Sockets(renamed), "api.sock"))
	kinds := New(Config{StateDir: dir}).Kinds(p)
	all, err := kinds[0].List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[vm.ID]int{}
	for _, o := range all {
		seen[o.VM]++
		if o.VM == ours && (o.Proof == "" || !o.Run) || o.VM == theirs && (o.Proof != "" || o.Doubt == "") {
			t.Errorf("%+v", o)
		}
	}
	if seen[ours] != 1 || seen[theirs] != 1 || seen[renamed] != 1 || seen[other] != 0 {
		t.Errorf("found %+v", all)
	}

	root := filepath.Join(p.Dir(jailed), "jail", "firecracker", string(jailed), "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	jails, err := kinds[1].List(t.Context())
	if err != nil || len(jails) != 1 || jails[0].VM != jailed || !jails[0].Run || jails[0].Proof == "" {
		t.Fatalf("%+v, %v", jails, err)
	}
	for range 2 {
		if err := kinds[1].Remove(t.Context(), jails[0]); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(p.Dir(jailed)); err != nil {
		t.Errorf("the VM's directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir(jailed), "jail")); err == nil {
		t.Error("the jail is there")
	}
}
