package dmsnap

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/host/dm"
	"banger/internal/host/file"
	"banger/internal/host/loop"
	"banger/internal/vm"
)

// Health asks the kernel where the overlay is attached, and else reads what the kernel last wrote down. The store never
// overflows: it is made large enough for every chunk of the image. What can end is the host's room for it.
func (Driver) Health(_ context.Context, o disk.Overlay) (disk.Health, error) {
	h, err := health(o)
	if err != nil {
		return disk.Health{}, fmt.Errorf("look at overlay %s: %w", o.Path, err)
	}
	return h, nil
}

func health(o disk.Overlay) (disk.Health, error) {
	id, err := vm.ParseID(o.ID)
	if err != nil {
		return disk.Health{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(o.Path, &fs); err != nil {
		return disk.Health{}, err
	}
	free := int64(fs.Bavail) * fs.Bsize
	d, attached, err := dm.Find(id)
	if err != nil {
		return disk.Health{}, err
	}
	if attached && d.Loaded {
		status, err := dm.Status(id)
		if err != nil {
			return disk.Health{}, err
		}
		h, err := parseStatus(status)
		h.HostFree, h.Frozen = free, d.Suspended
		if h.Total == 0 { // the kernel keeps the numbers of a bad one to itself
			h.Used, h.Total = sizes(o.Path)
		}
		return h, err
	}
	_, valid, err := readStore(o.Path)
	if err != nil {
		return disk.Health{}, err
	}
	h := disk.Health{State: disk.StoreOK, HostFree: free}
	if !valid {
		h.State = disk.StoreInvalid
	}
	h.Used, h.Total = sizes(o.Path)
	return h, nil
}

func sizes(path string) (used, total int64) {
	if s, _, err := readStore(path); err == nil {
		total = storeSize(s.size)
	}
	used, _ = file.Allocated(path)
	return used, total
}

// parseStatus reads "0 65536 snapshot 16/81920 16": sectors of the store in use, all of them, those with metadata. A bad
// one has a word instead.
func parseStatus(status string) (disk.Health, error) {
	f := strings.Fields(status)
	if len(f) < 4 || f[2] != "snapshot" {
		return disk.Health{}, fmt.Errorf("status %q is not that of a snapshot", status)
	}
	switch f[3] {
	case "Invalid", "Merge":
		return disk.Health{State: disk.StoreInvalid}, nil
	case "Overflow":
		return disk.Health{State: disk.StoreOverflow}, nil
	}
	var used, total int64
	if n, err := fmt.Sscanf(f[3], "%d/%d", &used, &total); n != 2 || err != nil || used < 0 || total < used {
		return disk.Health{}, fmt.Errorf("status %q is not understood", status)
	}
	return disk.Health{State: disk.StoreOK, Used: used * sector, Total: total * sector}, nil
}

// Freeze suspends the device.
func (Driver) Freeze(ctx context.Context, o disk.Overlay) error {
	return each(ctx, o, "freeze", dm.Suspend)
}

// Thaw resumes the device.
func (Driver) Thaw(ctx context.Context, o disk.Overlay) error { return each(ctx, o, "thaw", dm.Resume) }

// Abandon puts a table in place that fails everything.
func (Driver) Abandon(ctx context.Context, o disk.Overlay) error {
	return each(ctx, o, "abandon", dm.Wipe)
}

func each(ctx context.Context, o disk.Overlay, verb string, do func(context.Context, vm.ID) error) error {
	id, err := vm.ParseID(o.ID)
	if err == nil {
		err = do(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("%s overlay %s: %w", verb, o.Path, err)
	}
	return nil
}

// Repair marks the store as valid. vm.CodeConflict while it is attached: the kernel would not believe it.
func (Driver) Repair(ctx context.Context, o disk.Overlay) error {
	_, valid, err := readStore(o.Path)
	if err != nil {
		return fmt.Errorf("repair overlay %s: %w", o.Path, err)
	}
	if valid {
		return nil
	}
	held, err := loop.Find(o.Path)
	if err != nil {
		return fmt.Errorf("repair overlay %s: %w", o.Path, err)
	}
	if len(held) > 0 {
		return vm.Errorf(vm.CodeConflict, "repair overlay %s: it is attached", o.Path).WithHint("stop the VM first")
	}
	if err := act.Do(ctx, "overlay.repair", func() error { return revive(o.Path) }); err != nil {
		return fmt.Errorf("repair overlay %s: %w", o.Path, err)
	}
	return nil
}
