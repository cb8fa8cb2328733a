package crashtest

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/disk"
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

// Health implements disk.Guard: there always is room.
func (snapDisks) Health(_ context.Context, o disk.Overlay) (disk.Health, error) {
	b, err := os.ReadFile(o.Path)
	h := disk.Health{State: disk.StoreOK, HostFree: 1 << 40}
	if strings.HasPrefix(string(b), spoiltStore) {
		h.State = disk.StoreInvalid
	}
	return h, err
}

// Freeze implements disk.Guard.
func (snapDisks) Freeze(context.Context, disk.Overlay) error { return nil }

// Thaw implements disk.Guard.
func (snapDisks) Thaw(context.Context, disk.Overlay) error { return nil }

// Abandon implements disk.Guard.
func (snapDisks) Abandon(context.Context, disk.Overlay) error { return nil }

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
