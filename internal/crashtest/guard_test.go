package crashtest

import (
	"context"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/vm"
)

// A store begins with the kernel's word on it: it is well, or a write to it failed when the host's file system was full.
const (
	wellStore   = "on "
	spoiltStore = "no "
)

// mark writes the kernel's word over the one before.
func mark(store, word string) error {
	f, err := os.OpenFile(store, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt([]byte(word), 0)
	return err
}

// Health implements disk.Guard.
func (d snapDisks) Health(_ context.Context, o disk.Overlay) (disk.Health, error) {
	b, err := os.ReadFile(o.Path)
	now, _ := d.k.findDM(dmOf(vm.ID(o.ID)))
	h := disk.Health{State: disk.StoreOK, HostFree: d.k.room(), Frozen: now.suspended}
	if strings.HasPrefix(string(b), spoiltStore) {
		h.State = disk.StoreInvalid
	}
	return h, err
}

// Freeze implements disk.Guard.
func (d snapDisks) Freeze(ctx context.Context, o disk.Overlay) error {
	name := dmOf(vm.ID(o.ID))
	if now, there := d.k.findDM(name); !there || now.suspended {
		return nil
	}
	return act.Do(ctx, "dm.suspend", func() error { return d.k.changeDM(name, func(now *dmDevice) { now.suspended = true }) })
}

// Thaw implements disk.Guard.
func (d snapDisks) Thaw(ctx context.Context, o disk.Overlay) error {
	name := dmOf(vm.ID(o.ID))
	if now, _ := d.k.findDM(name); !now.suspended {
		return nil
	}
	return act.Do(ctx, "dm.resume", func() error { return d.k.resumeDM(name) })
}

// Abandon implements disk.Guard, in the steps of host/dm.
func (d snapDisks) Abandon(ctx context.Context, o disk.Overlay) error {
	name := dmOf(vm.ID(o.ID))
	if now, _ := d.k.findDM(name); !now.suspended {
		return nil
	}
	err := act.Do(ctx, "dm.wipe", func() error {
		return d.k.changeDM(name, func(now *dmDevice) { now.on, now.wiped = nil, true })
	})
	if err != nil {
		return err
	}
	return act.Do(ctx, "dm.resume", func() error { return d.k.resumeDM(name) })
}

// Repair implements disk.Guard.
func (d snapDisks) Repair(ctx context.Context, o disk.Overlay) error {
	if _, held := d.k.loopOf(o.Path); held {
		return unix.EBUSY
	}
	return act.Do(ctx, "overlay.repair", func() error { return mark(o.Path, wellStore) })
}

// makeSpoilt is a stopped VM under which the host's file system was full.
func makeSpoilt(r *run) {
	makeStopped(r)
	v, _ := r.record(web)
	if err := mark(v.Runtime.SystemOverlay, spoiltStore); err != nil {
		r.w.t.Error(err)
	}
}

// room is how much is free on the disk.
func (k *machine) room() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full {
		return 0
	}
	return 1 << 40
}

// fill takes all room of the disk, or gives it back.
func (k *machine) fill(full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.full = full
}

// makeGuarded is a VM that runs. Its next daemons look at its disk more often than is of use: the cases are many.
func makeGuarded(r *run) {
	makeRunning(r)
	r.w.guards = 10 * time.Millisecond
}

// fullFor fills the host's disk, and does something once the VM's waits. There is room again when it returns, whoever died.
func fullFor(do func(*run) answer) func(*run) answer {
	return func(r *run) answer {
		r.w.k.fill(true)
		defer r.w.k.fill(false)
		if a := r.told(func(said string) bool { return said != "" }); !a.acked {
			return a
		}
		return do(r)
	}
}

// roomAgain gives the disk its room back, and waits until the VM's record says no more that it waits.
func roomAgain(r *run) answer {
	r.w.k.fill(false)
	return r.told(func(said string) bool { return said == "" })
}

// told waits until what the VM's record says of trouble is as it should be. A VM that is not to run has none to wait for.
func (r *run) told(so func(said string) bool) (a answer) {
	r.do(func(ctx context.Context) {
		again := time.NewTicker(time.Millisecond) // as rest does
		defer again.Stop()
		for !a.acked && a.err == nil {
			v, err := r.daemon.Engine.Store.VMByRef(ctx, web)
			if a.acked, a.err = err == nil && (so(v.Runtime.LastError) || v.Want != vm.WantRunning), err; a.acked {
				return
			}
			select {
			case <-ctx.Done():
				a.err = ctx.Err()
			case <-again.C:
			}
		}
	})
	return a
}

// guardOperations are about disks that wait since the host's is full.
func guardOperations(running, stopped func(*run, answer) error) []operation {
	return []operation{
		{name: "the host is full for a while", bare: true, before: makeGuarded, do: fullFor(roomAgain), kept: running},
		{name: "kill, the host is full", bare: true, covers: []string{"vm-stop"}, before: makeGuarded, do: fullFor(kill), kept: stopped},
	}
}
