package qemu

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/inventory"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// pretend starts a process with a command line of its own choice, as anybody can.
func pretend(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := &exec.Cmd{Path: "/bin/sh", Args: append([]string{args[0], "-c", "read x"}, args[1:]...)}
	if _, err := cmd.StdinPipe(); err != nil { // it waits for ever
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// Of processes that look alike only those with an API socket below this root's run directory are ours.
func TestInventory(t *testing.T) {
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	p := inventory.Place{Root: dir, Run: filepath.Join(dir, "run"), VMs: filepath.Join(dir, "vms")}
	const id, other = vm.ID("00000000000a"), vm.ID("00000000000b")
	sock := filepath.Join(p.Sockets(id), "api.sock")
	ours := pretend(t, "qemu-system-x86_64", "-qmp", qmpArgument(sock))
	elsewhere := pretend(t, "qemu-system-x86_64", "-qmp", qmpArgument(filepath.Join(dir, "run2", string(other), "api.sock")))
	silent := []*exec.Cmd{
		pretend(t, "tail", "-qmp", qmpArgument(sock)),
		pretend(t, "qemu-system-x86_64", "-qmp", "unix:"+sock),
		pretend(t, "qemu-system-x86_64", "-qmp", qmpArgument(filepath.Join(p.Run, "web", "api.sock"))),
		pretend(t, "qemu-system-x86_64", "-serial", qmpArgument(sock)),
	}
	kind := New(Config{}).Kinds(p)[0]
	find := func(cmd *exec.Cmd) (inventory.Object, bool) {
		t.Helper()
		all, err := kind.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(o inventory.Object) bool { return o.Name == strconv.Itoa(cmd.Process.Pid) })
		if i < 0 {
			return inventory.Object{}, false
		}
		return all[i], true
	}
	o, ok := find(ours)
	if !ok || o.VM != id || !strings.Contains(o.Proof, sock) || !o.Run || o.Made.IsZero() || o.More != "qemu-system-x86_64" {
		t.Fatalf("%+v, %v", o, ok)
	}
	theirs, ok := find(elsewhere)
	if !ok || theirs.VM != other || theirs.Proof != "" || !strings.Contains(theirs.Doubt, "run2") {
		t.Errorf("another root's: %+v, %v", theirs, ok)
	}
	for _, cmd := range silent {
		if o, ok := find(cmd); ok {
			t.Errorf("%q was taken for a machine: %+v", cmd.Args, o)
		}
	}
	reused := o
	reused.Made = reused.Made.Add(-1) // the same pid, begun at another time
	for _, x := range []inventory.Object{theirs, reused} {
		if err := kind.Remove(t.Context(), x); err != nil {
			t.Error(err)
		}
	}
	for _, cmd := range append(silent, ours, elsewhere) {
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("%q was ended: %v", cmd.Args, err)
		}
	}
	for range 2 {
		if err := kind.Remove(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	if err := ours.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
	if err := elsewhere.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("another root's machine was ended: %v", err)
	}
}
