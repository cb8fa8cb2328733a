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
func (g *guarded) Repair(context.Context, disk.Overlay) error { return nil }

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
