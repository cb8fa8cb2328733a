package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/api/server"
	"banger/internal/config"
	"banger/internal/doctor"
	"banger/internal/engine"
	"banger/internal/guestbin"
	"banger/internal/host/cgroup"
	"banger/internal/host/ext4"
	"banger/internal/host/proc"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/version"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// recoverWait bounds how long clients wait for the first look at VMs after a start; what takes longer goes on beside them.
const recoverWait = 10 * time.Second

// shutdownWait bounds how long requests that are under way are waited for.
const shutdownWait = 2 * time.Second

func serve(ctx context.Context, p paths.Paths, c config.Config, log *slog.Logger, ready *readyPipe, of wiring) error {
	began := time.Now()
	guestKey, err := guestbin.Key()
	if err != nil {
		return err
	}
	cgroups := cgroup.Open()
	d, err := Assemble(ctx, p, c, log, Host{
		Guest: kernel.Guest{Key: guestKey, Binary: guestbin.Binary}, Drivers: of, Processes: vmm.HostProcesses{}, Cgroups: cgroups, WorkDisk: workDisk(),
		BootID: proc.BootID(), Limits: hostLimits(),
	})
	if err != nil {
		return err
	}
	defer d.Close()

	listener, err := server.Keep(ctx, p.Socket(), p.Make, log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	status := statusOf(p, d.Store, began)
	sources, err := sourcesOf(Drivers{VMMs: d.Engine.VMMs, Disks: d.Engine.Disks, Networks: d.Engine.Networks}, cgroups, began, d.Images, d.Kernels, d.Programs)
	if err != nil {
		return err
	}
	objects := keeperOf(p, sources, d.Store.VMs, d.Engine.Sweep)
	srv := &http.Server{
		Handler: server.New(server.Config{
			Engine: d.Engine, Images: d.Images, Kernels: d.Kernels, Programs: d.Programs, Inventory: objects, Version: version.String(), Status: status, Stop: stop, Log: log,
			Doctor: doctor.New(doctor.Config{
				Paths: p, Store: d.Store, VMMs: d.Engine.VMMs, Disks: d.Engine.Disks, Nets: d.Engine.Networks, Auto: d.Engine.Auto,
				CanBuild: d.Images.CanBuild, NoCgroup: cgroups == cgroup.Tree{},
				Inventory: objects.List, Programs: d.Programs.List, Unlimited: cgroups.Lacks, NoJail: !c.Firecracker.Jail, Unjailed: d.Engine.Unjailed,
			}).Check,
		}),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	log.Info("serving", "version", version.String(), "pid", os.Getpid(), "root", p.Root, "took", time.Since(began).String())
	ready.tell(api.Ready{Ready: true, Version: version.String()})

	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", p.Socket(), err)
	case <-ctx.Done():
	}
	log.Info("stopping; VMs live on")
	sctx, cancel := context.WithTimeout(context.Background(), shutdownWait)
	defer cancel()
	if err := srv.Shutdown(sctx); err != nil { // long requests (events, waits) end with their connection
		_ = srv.Close()
	}
	return nil
}

func defaultsOf(c config.Config) (engine.Defaults, error) {
	memory, err := c.MemoryMiB()
	if err != nil {
		return engine.Defaults{}, err
	}
	disk, err := c.DiskBytes()
	if err != nil {
		return engine.Defaults{}, err
	}
	return engine.Defaults{VCPU: c.VM.VCPU, MemoryMiB: memory, DiskSize: disk, Image: c.VM.Image, Kernel: c.VM.Kernel,
		VMM: c.VM.VMM, Disk: c.VM.Disk, Network: c.VM.Network}, nil
}

// proveBoot gives a VMM driver something real to boot for its proof that acceleration works: the default kernel, if
// it is there yet. It is not deleted before that is over.
func proveBoot(kernels *kernel.Library) vmm.ProveBoot {
	return func(ctx context.Context) (vmm.Bootable, error) {
		k, release, err := kernels.Hold(ctx, vm.DefaultKernel)
		if err != nil {
			return vmm.Bootable{}, err
		}
		b, err := kernels.Boot(ctx, k.Digest)
		if err != nil {
			release()
			return vmm.Bootable{}, err
		}
		return vmm.Bootable{Kernel: b.Vmlinux, Initramfs: b.Initramfs, Release: release}, nil
	}
}

// workDisk makes the ext4 file system that a guest mounts at /root, or enlarges its disk.
func workDisk() func(ctx context.Context, path string, size int64) error {
	var maker ext4.Maker
	return func(ctx context.Context, path string, size int64) error {
		if err := maker.Make(ctx, path, size, "work"); err != nil {
			return err
		}
		return ext4.Grow(ctx, path, size)
	}
}

func hostLimits() engine.Limits {
	l := engine.Limits{FreeBytes: freeBytes}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		l.MemoryMiB = int64(info.Totalram * uint64(info.Unit) >> 20)
	}
	return l
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}

func statusOf(p paths.Paths, db *store.Store, began time.Time) func(context.Context) (api.Status, error) {
	return func(ctx context.Context) (api.Status, error) {
		s := api.Status{PID: os.Getpid(), Version: version.String(), Socket: p.Socket(), Database: p.Database(), Root: p.Root,
			Log: p.DaemonLog(), UptimeMs: time.Since(began).Milliseconds()}
		all, err := db.VMs(ctx)
		if err != nil {
			return s, errors.Join(errors.New("count VMs"), err)
		}
		s.VMs = len(all)
		for _, r := range all {
			if r.Runtime.State == vm.StateRunning {
				s.Running++
			}
		}
		return s, nil
	}
}
