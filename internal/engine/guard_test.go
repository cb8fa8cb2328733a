package engine

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/disk"
	"banger/internal/disk/fullcopy"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// guarded is a disk driver whose overlays do not survive a full host.
type guarded struct {
	faultyDisk

	mu     sync.Mutex
	health disk.Health
	calls  []string
	there  bool // it is attached
	looks  int
	flows  chan struct{} // while it is frozen: closed when what waits in it goes on or fails
}

var _ disk.Guard = (*guarded)(nil)

func (g *guarded) set(state string, free int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.health.State, g.health.HostFree = state, free
}

func (g *guarded) called() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.calls, " ")
}

func (g *guarded) Health(context.Context, disk.Overlay) (disk.Health, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks++
	return g.health, nil
}

func (g *guarded) looked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.looks
}

func (g *guarded) frozen(to bool, call string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, call)
	if g.health.Frozen = to; to {
		g.flows = make(chan struct{})
	} else if g.flows != nil {
		close(g.flows)
		g.flows = nil
	}
	return nil
}

// held is for a VMM that waits for the disk; nil: it need not.
func (g *guarded) held(vmm.Config) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flows
}

func (g *guarded) Freeze(context.Context, disk.Overlay) error { return g.frozen(true, "freeze") }
func (g *guarded) Thaw(context.Context, disk.Overlay) error   { return g.frozen(false, "thaw") }
func (g *guarded) Abandon(context.Context, disk.Overlay) error {
	return g.frozen(false, "abandon")
}

// Repair refuses an attached one, as the kernel would not believe it.
func (g *guarded) Repair(context.Context, disk.Overlay) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.there {
		return vm.Errorf(vm.CodeConflict, "it is attached")
	}
	g.calls = append(g.calls, "repair")
	g.health.State = disk.StoreOK
	return nil
}

// Ensure takes only one that is well.
func (g *guarded) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.health.State != disk.StoreOK {
		return disk.Attached{}, vm.Errorf(vm.CodeCorrupt, "overlay is %s", g.health.State)
	}
	g.there = true
	return g.faultyDisk.Ensure(ctx, o)
}

func (g *guarded) Detach(ctx context.Context, o disk.Overlay) error {
	err := g.faultyDisk.Detach(ctx, o)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.there = g.there && err != nil
	return err
}

func (w *world) disk() disk.Driver {
	plain := faultyDisk{fullcopy.New(), w}
	if w.store != nil {
		w.store.faultyDisk = plain
		return w.store
	}
	return plain
}

// A guest waits while the host has no room, and the record says so; it goes on when there is room.
func TestDisksAreFrozenBeforeTheHostIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store = &guarded{health: disk.Health{State: disk.StoreOK, HostFree: 100 << 30}}
	d := w.start()
	r := d.run("web", false)
	w.store.set(disk.StoreOK, guardReserve-1)
	r = d.until(r.ID, "frozen", func(r vm.VMRecord) bool { return strings.Contains(r.Runtime.LastError, "waits") })
	if r.State != vm.StateRunning || r.Runtime.LastErrorAt.IsZero() {
		t.Errorf("%+v", r.Runtime)
	}
	w.store.set(disk.StoreOK, 2*guardReserve-1) // not at the first byte that is free
	<-time.After(3 * guardEvery)
	if got := w.store.called(); got != "freeze" {
		t.Errorf("did %q", got)
	}
	d.kill() // the next daemon finds it frozen
	d = w.start()
	w.store.set(disk.StoreOK, 2*guardReserve)
	for end := time.Now().Add(10 * time.Second); w.store.called() != "freeze thaw"; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not thawed: %q", w.store.called())
		}
	}
	d.until(r.ID, "well", func(r vm.VMRecord) bool { return r.Runtime.LastError == "" })
	w.store.set(disk.StoreInvalid, 100<<30)
	d.until(r.ID, "told of", func(r vm.VMRecord) bool { return strings.Contains(r.Runtime.LastError, "invalid") })
	if got := w.store.called(); got != "freeze thaw" {
		t.Errorf("did %q to what is lost", got)
	}
}

// A guest that would wait from its first write is not started.
func TestNoRoomForAGuardedDisk(t *testing.T) {
	w := newWorld(t)
	w.store = &guarded{health: disk.Health{State: disk.StoreOK, HostFree: 100 << 30}}
	d := w.start()
	r := d.run("web", false)
	_, err := d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	d.Limits.FreeBytes = func(string) (uint64, error) { return 2*guardReserve - 1, nil }
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	if _, err = d.Watch().Started(t.Context(), r.ID, nil); vm.CodeOf(err) != vm.CodeNoSpace {
		t.Errorf("%v (code %s)", err, vm.CodeOf(err))
	}
}

// What the host's full file system did to a disk is repaired by the next start, once there is room.
func TestASpoiltDiskIsRepairedByAStart(t *testing.T) {
	w := newWorld(t)
	w.store = &guarded{health: disk.Health{State: disk.StoreOK, HostFree: 100 << 30}}
	d := w.start()
	r := d.run("web", false)
	_, err := d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	var notes []string
	start := func() error {
		t.Helper()
		watch := d.Watch()
		_, err := d.Start(t.Context(), "web")
		must(t, err)
		_, err = watch.Started(t.Context(), r.ID, func(ev vm.Event) {
			if ev.Kind == "note" {
				notes = append(notes, ev.Text)
			}
		})
		return err
	}
	w.store.set(disk.StoreInvalid, 2*guardReserve-100<<20)
	err = start()
	if vm.CodeOf(err) != vm.CodeNoSpace || !strings.Contains(err.Error(), "nothing else is lost") || !strings.Contains(vm.HintOf(err), "free 100 MiB") {
		t.Errorf("without room: %v (code %s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
	}
	if got := w.store.called(); got != "" || len(notes) > 0 {
		t.Errorf("without room it did %q and said %q", got, notes)
	}
	w.store.set(disk.StoreInvalid, 2*guardReserve)
	w.store.mu.Lock()
	w.store.there = true // the kernel may still have it
	w.store.mu.Unlock()
	must(t, start())
	if got := w.store.called(); got != "repair" || len(notes) != 1 || !strings.Contains(notes[0], "repaired") {
		t.Errorf("with room it did %q and said %q", got, notes)
	}
}
