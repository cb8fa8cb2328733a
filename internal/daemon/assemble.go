package daemon

import (
	"context"
	"log/slog"
	"time"

	"banger/internal/binary"
	"banger/internal/config"
	"banger/internal/disk"
	"banger/internal/engine"
	"banger/internal/handles"
	"banger/internal/image"
	"banger/internal/inventory/places"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/publish"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Host is what a daemon stands on: the real one, or one that a test can crash and reboot.
type Host struct {
	Guest      kernel.Guest
	ImageSteps *image.Steps
	Drivers    func(paths.Paths, config.Config, *kernel.Library, *slog.Logger) (Drivers, error)
	Processes  vmm.Processes
	Cgroups    engine.Cgroups
	WorkDisk   func(ctx context.Context, path string, size int64) error
	BootID     string
	Limits     engine.Limits
	Listen     func(ctx context.Context, p vm.Port) (publish.Socket, error) // nil = this host's ports
	GuardEvery time.Duration                                                // 0 = as the engine does
}

// Daemon is all of a daemon but its lock, its log and its socket.
type Daemon struct {
	Store    *store.Store
	Images   *image.Library
	Kernels  *kernel.Library
	Programs *binary.Library
	Engine   *engine.Engine

	closes []func()
}

// Assemble puts a daemon together over what an earlier one left, and returns it when it has had its first look at all
// VMs, or at most recoverWait later. The caller holds the lock of p, and its directories are there.
func Assemble(ctx context.Context, p paths.Paths, c config.Config, log *slog.Logger, h Host) (*Daemon, error) {
	d, whole := &Daemon{}, false
	defer func() {
		if !whole {
			d.Close()
		}
	}()
	db, err := openDatabase(ctx, p)
	if err != nil {
		return nil, err
	}
	d.Store = db
	d.closes = append(d.closes, func() { joinLogged(log, "close the database", db.Close()) })
	if err := checkOurs(ctx, p, db); err != nil {
		return nil, err
	}
	d.Images = image.New(image.Config{
		Dir: p.Images(), Records: db, Packages: c.Image.Packages, Mirror: c.Image.Mirror, Steps: h.ImageSteps, Pinned: pinned(db, p.VMs(), db.PinnedImages), Unnamed: db.UnnamedImages(),
	})
	d.Kernels = kernel.New(kernel.Config{
		Dir: p.Kernels(), InitramfsDir: p.Initramfs(), Guest: h.Guest, Records: db, Pinned: pinned(db, p.VMs(), db.PinnedKernels), Unnamed: db.UnnamedKernels(),
	})
	d.closes = append(d.closes, d.Images.Close, d.Kernels.Close) // with their records still there, and nobody left who asks for one
	drivers, err := h.Drivers(p, c, d.Kernels, log)
	if err != nil {
		return nil, err
	}
	d.Programs = drivers.Programs
	d.Programs.Users = usersOf(db, binary.Name)
	d.closes = append(d.closes, drivers.Close, drivers.Programs.Close)

	joinLogged(log, "clear away half-written files", places.Clear(ctx, placeOf(p)))
	// Before an image is removed: what a probe left beside it tells of devices.
	joinLogged(log, "clear away what probes of disks left", disk.Sweep(ctx, drivers.Disks, placeOf(p)))
	joinLogged(log, "repair images", d.Images.Reconcile(ctx))
	joinLogged(log, "repair kernels", d.Kernels.Reconcile(ctx))
	joinLogged(log, "repair VMM programs", drivers.Programs.Reconcile(ctx))

	defaults, err := defaultsOf(c)
	if err != nil {
		return nil, err
	}
	d.Engine = engine.New(ctx, engine.Config{
		Store: db, Handles: handles.NewCache(), Paths: p, Images: d.Images, Kernels: d.Kernels,
		VMMs: drivers.VMMs, Disks: drivers.Disks, Networks: drivers.Networks,
		Processes: h.Processes, Cgroups: h.Cgroups, WorkDisk: h.WorkDisk, Defaults: defaults, UIDs: uidsOf(p, c.Firecracker), BootID: h.BootID, Limits: h.Limits, Listen: h.Listen, GuardEvery: h.GuardEvery, Log: log,
	})
	d.closes = append(d.closes, d.Engine.Close)
	rctx, cancel := context.WithTimeout(ctx, recoverWait)
	defer cancel()
	if err := d.Engine.Recover(rctx); err != nil {
		return nil, err
	}
	whole = true
	return d, nil
}

// Close ends what runs of the daemon; VMs live on.
func (d *Daemon) Close() {
	for i := len(d.closes) - 1; i >= 0; i-- {
		d.closes[i]()
	}
}
