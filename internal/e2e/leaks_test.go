package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/host/proc"
	"banger/internal/store"
	"banger/internal/vm"
)

// A VM whose record was lost still runs, and nobody would ever end it: doctor names all of it, and takes it away when the VM
// is named. The VM beside it, and what another root has, is not touched.
func TestALostRecordLeavesOrphans(t *testing.T) {
	beside(t)
	b, other := newBox(t), anotherBox(t)
	b.vm("lost")
	b.vm("kept")
	other.vm("theirs")
	var v api.VMView
	b.json(&v, "vm", "show", "lost", "--json")
	b.killDaemon()
	b.forget(v.ID)

	objects := b.objects(1, "doctor", "--leaks", "--json")
	orphans := map[string]bool{}
	for _, o := range objects {
		if o.Status == api.ObjectOrphan {
			orphans[o.Kind] = true
			if o.VM != v.ID || !strings.Contains(o.Kept, "--discard "+string(v.ID)) {
				t.Errorf("%+v", o)
			}
		}
		if o.VM != v.ID && o.Status == api.ObjectOwned && o.Owner != "kept" {
			t.Errorf("%+v", o)
		}
	}
	for _, kind := range []string{"process", "VM's directory", "run directory"} {
		if !orphans[kind] {
			t.Errorf("no %s among the orphans %+v", kind, objects)
		}
	}
	b.objects(1, "doctor", "--leaks", "--fix", "--yes", "--json")
	b.fails(125, "stdin is no terminal", "doctor", "--leaks", "--fix", "--discard", string(v.ID))
	process := proc.Identity{PID: v.Handles.PID, StartTime: v.Handles.StartTime, BootID: v.Handles.BootID}
	if !proc.Alive(process) {
		t.Error("the lost VM's process is gone before anybody agreed to that")
	}
	for _, o := range b.objects(0, "doctor", "--leaks", "--fix", "--discard", string(v.ID), "--yes", "--json") {
		if !o.Removed {
			t.Errorf("%+v", o)
		}
		t.Logf("removed %s %s: %s", o.Kind, o.Name, o.Why)
	}
	if proc.Alive(process) {
		t.Error("the lost VM's process lives")
	}
	for _, o := range b.objects(0, "doctor", "--leaks", "--json") {
		if o.VM == v.ID {
			t.Errorf("left: %+v", o)
		}
	}
	for _, each := range []struct {
		b    *box
		name string
	}{{b, "kept"}, {other, "theirs"}} {
		if got := each.b.ok("vm", "exec", each.name, "--", "hostname"); got != each.name+"\n" {
			t.Errorf("%s says %q", each.name, got)
		}
	}
}

// objects runs a command that prints what banger has on the host.
func (b *box) objects(code int, args ...string) (objects []api.HostObject) {
	b.t.Helper()
	out, errs, got := b.run(nil, args...)
	if err := json.Unmarshal([]byte(out), &objects); err != nil || got != code {
		b.t.Fatalf("banger %v: exit code %d, want %d, %v\n%s%s", args, got, code, err, out, errs)
	}
	return objects
}

// json runs a command and reads what it prints.
func (b *box) json(into any, args ...string) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.ok(args...)), into); err != nil {
		b.t.Fatalf("banger %v: %v", args, err)
	}
}

// killDaemon ends it as a crash does.
func (b *box) killDaemon() {
	b.t.Helper()
	var s api.Status
	b.json(&s, "daemon", "status", "--json")
	id, err := proc.Identify(s.PID)
	if err == nil {
		err = proc.Signal(id, unix.SIGKILL)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	if err == nil {
		err = proc.Wait(ctx, id)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// forget takes a VM's row out of the database while no daemon runs, as no daemon of ours would.
func (b *box) forget(id vm.ID) {
	b.t.Helper()
	db, err := store.Open(b.t.Context(), filepath.Join(b.root, "banger.db"))
	if err == nil {
		_, err = db.SetWant(b.t.Context(), id, vm.WantGone, vm.StateRemoving)
	}
	if err == nil {
		err = db.DeleteVM(b.t.Context(), id)
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
