package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/vm"
)

// guardEvery is how often the disks of running VMs are looked at that do not survive a full file system. Nothing tells that
// one fills up.
const guardEvery = time.Second

// guardReserve is how much of the host's file system is kept for what guests write between two looks.
const guardReserve = 1 << 30

// diskWaits begins what is said of a frozen disk. It is over with the run.
const diskWaits = "its system disk waits"

// guardDisks freezes the disks of living VMs before the host's file system is full, and thaws them when there is room
// again: a guest that waits loses nothing. The record says so meanwhile. It ends with ctx.
func (e *Engine) guardDisks(ctx context.Context) {
	var any bool
	for _, d := range e.Disks {
		_, ok := d.(disk.Guard)
		any = any || ok
	}
	if !any {
		return
	}
	ctx = act.In(ctx, "guard")
	tick := time.NewTicker(e.GuardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !e.busy() {
			continue
		}
		records, err := e.Store.SharedVMs(ctx)
		if err != nil {
			continue // told by whoever acts on it
		}
		for _, r := range records {
			d, err := e.disk(r.Disk)
			guard, ok := d.(disk.Guard)
			w := e.known(r.ID)
			if err != nil || !ok || w == nil {
				continue
			}
			if e.Handles.Get(r.ID).IsZero() { // nothing is left of its run
				w.diskTrouble("")
				continue
			}
			var said string
			var alive bool
			err = w.overDisk(ctx, func() (err error) {
				id := e.Handles.Process(r.ID)
				alive = e.Processes.Alive(id) && !w.wasKilled(id)
				said, err = guardDisk(ctx, guard, e.overlay(r), alive)
				return err
			})
			if err != nil {
				if ctx.Err() == nil && alive { // else the disk is being taken down, and who does it tells
					e.Log.Warn("cannot guard a VM's disk", "vm", r.Name, "id", r.ID, "error", err)
				}
				continue
			}
			w.diskTrouble(said)
		}
	}
}

// overDisk does what guard and kill may not do to a disk at the same time.
func (w *worker) overDisk(ctx context.Context, do func() error) error {
	select {
	case w.disk <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.disk }()
	return do()
}

// guardDisk looks at one disk and does what is needed; said is what is wrong with it, for the record. Whatever is wanted of
// the VM, it writes while it lives, and nothing may wait for ever. One that was killed lives no more, though it may take
// its time: frozen again, it never would end.
func guardDisk(ctx context.Context, g disk.Guard, o disk.Overlay, alive bool) (said string, err error) {
	h, err := g.Health(ctx, o)
	if err != nil {
		return "", err
	}
	switch {
	case h.State != disk.StoreOK:
		return "its system disk is " + h.State + ": the host's file system was full; stop the VM, free some space and start it: that repairs it", nil
	case h.Frozen && h.HostFree >= 2*guardReserve:
		return "", g.Thaw(ctx, o)
	case alive && !h.Frozen && h.HostFree < guardReserve:
		err = g.Freeze(ctx, o)
	case !h.Frozen:
		return "", nil
	}
	return fmt.Sprintf(diskWaits+": only %d MiB are free on the host; it goes on by itself when there are %d", h.HostFree>>20, 2*guardReserve>>20), err
}

// repairDisk makes the system disk of a VM that does not run usable again, after the host's file system was full while nobody
// guarded it. Where its health is not known it was never made, or is past repair: Ensure makes it, or says what is wrong.
func (w *worker) repairDisk(ctx context.Context, r vm.VMRecord, d disk.Driver, g disk.Guard) error {
	o := w.e.overlay(r)
	h, err := g.Health(ctx, o)
	if err != nil || h.State == disk.StoreOK {
		return nil
	}
	const need = 2 * guardReserve
	if h.HostFree < need {
		return vm.Errorf(vm.CodeNoSpace, "its system disk is %s: a write to it failed, most likely because the host's file system was full; nothing else is lost,"+
			" and a start repairs it once %d MiB are free there: %d are", h.State, need>>20, h.HostFree>>20).
			WithHint("free %d MiB on the file system of %s and start it again: banger vm list shows VMs that can be deleted", need>>20-h.HostFree>>20, o.Path)
	}
	if err = d.Detach(ctx, o); err == nil { // the kernel keeps to its word as long as it holds the disk
		err = g.Repair(ctx, o)
	}
	if err != nil {
		return noSpace(fmt.Errorf("repair the system disk: %w", err))
	}
	w.e.Log.Warn("a VM's system disk is repaired, most likely after the host's file system was full", "vm", r.Name, "id", r.ID, "was", h.State)
	w.e.events.publish(vm.Event{VM: r.ID, Name: r.Name, Kind: "note", Text: "the system disk is repaired: it was " + h.State +
		", most likely since the host's file system was full, and has lost the writes that failed then and no others"})
	return nil
}

// diskTrouble notes what is wrong with the disk, empty when nothing is, for the worker to record.
func (w *worker) diskTrouble(said string) {
	w.mu.Lock()
	changed := (w.trouble == "") != (said == "")
	if changed {
		w.trouble = said
	}
	w.mu.Unlock()
	if changed {
		w.poke()
	}
}

// troubled says that something is wrong with the disk.
func (w *worker) troubled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble != ""
}

// recordTrouble brings the record of a running VM in line with what was noted of its disk and its network.
func (w *worker) recordTrouble(ctx context.Context, r vm.VMRecord) error {
	w.mu.Lock()
	said := w.trouble
	if fault := w.net.fault; fault != "" && said != "" {
		said += "; " + fault
	} else if fault != "" {
		said = fault
	}
	w.mu.Unlock()
	if r.Want != vm.WantRunning || r.Runtime.State != vm.StateRunning || r.Runtime.LastError == said {
		return nil
	}
	return w.commit(ctx, r, func(r *vm.VMRecord) {
		r.Runtime.LastError, r.Runtime.LastErrorAt = said, time.Time{}
		if said != "" {
			r.Runtime.LastErrorAt = time.Now()
		}
	})
}
