package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/handles"
	"banger/internal/host/cgroup"
	"banger/internal/host/proc"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/sshkey"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// start makes what is missing, launches the VMM and waits for the guest. What a failed start made is taken down again,
// but for the VM's disks.
func (w *worker) start(ctx context.Context, r vm.VMRecord) error {
	began := time.Now()
	err := w.launch(ctx, r)
	if err == nil {
		err = w.reach(ctx, r)
	}
	w.e.counts.started(ctx, r, err, time.Since(began))
	return w.settle(ctx, r, err)
}

// adopt reaches the guest of a process that is already there: after a restart of the daemon, or a lost session.
func (w *worker) adopt(ctx context.Context, r vm.VMRecord) error {
	w.attend(r, w.e.Handles.Process(r.ID), nil)
	if w.recovering {
		return nil // the process is known; the guest is reached in the next round, so that the daemon answers soon
	}
	if w.client() != nil {
		return w.settle(ctx, r, nil) // reached before: only the record does not say so yet
	}
	return w.settle(ctx, r, w.reach(ctx, r))
}

// settle commits the outcome of a start: running, or the error after what was begun has been ended.
func (w *worker) settle(ctx context.Context, r vm.VMRecord, err error) error {
	if err == nil {
		return w.commit(ctx, r, func(r *vm.VMRecord) {
			if r.Runtime.State != vm.StateRunning {
				r.StartedAt = time.Now()
			}
			r.Runtime.State, r.Runtime.LastError, r.Runtime.LastErrorAt = vm.StateRunning, "", time.Time{}
			r.Runtime.RestartAt = time.Time{}
		})
	}
	if ctx.Err() != nil {
		return ctx.Err() // the intent changed, or the daemon ends: the next round (or the next daemon) goes on from here
	}
	w.e.Log.Warn("start failed", "vm", r.Name, "id", r.ID, "state", r.Runtime.State, "error", err)
	if r.Runtime.State == vm.StateRunning { // adopted: a guest that does not answer is no reason to end it
		if !w.e.Processes.Alive(w.e.Handles.Process(r.ID)) {
			return nil
		}
		return err
	}
	return w.giveUp(ctx, r, err)
}

// launch makes the objects and starts the VMM. Handles are noted when the objects are there, and when the process is.
func (w *worker) launch(ctx context.Context, r vm.VMRecord) error {
	e := w.e
	w.closeAgent() // of an earlier process
	w.mu.Lock()
	w.startError, w.trouble, w.net, w.paused = nil, "", netState{}, false
	w.mu.Unlock()
	r, err := e.jailed(ctx, r) // first: the tap device is its user's as well
	if err != nil {
		return err
	}
	done := w.stage(r, "disk")
	p, err := w.prepare(ctx, r)
	done(err)
	if err != nil {
		return err
	}
	driver, err := e.vmm(r.VMM)
	if err != nil {
		return err
	}
	w.launched = time.Now()
	w.consoleFrom, w.logFrom = fileSize(r.Runtime.LogPath), fileSize(filepath.Join(r.Runtime.VMDir, vmmLog))
	id, exited, err := driver.Launch(ctx, vmm.Config{
		ID: r.ID, Name: r.Name, Dir: r.Runtime.VMDir, UID: r.Runtime.UID, Metrics: r.Runtime.MetricsPath, VCPU: r.Spec.VCPU, MemoryMiB: r.Spec.MemoryMiB,
		Kernel: p.boot.Vmlinux, Initramfs: p.boot.Initramfs, Init: r.Spec.Init,
		Root:    vmm.Disk{Path: p.root.Path, Format: p.root.Format, Block: p.root.Block},
		Work:    &vmm.Disk{Path: r.Runtime.WorkDiskPath, Format: "raw"},
		Modules: &vmm.Disk{Path: p.boot.ModulesDisk, Format: "raw", ReadOnly: true},
		NIC:     p.net.NIC,
		APISock: r.Runtime.APISockPath, AgentSock: r.Runtime.VSockPath,
		Cgroup: e.Handles.Get(r.ID).Cgroup, Console: r.Runtime.LogPath, Log: filepath.Join(r.Runtime.VMDir, vmmLog),
	})
	if err != nil {
		return fmt.Errorf("launch %s: %w", driver.Name(), err)
	}
	w.attend(r, id, exited)
	if err := e.Handles.Set(ctx, r.ID, r.Runtime.VMDir, handles.WithProcess(e.Handles.Get(r.ID), id)); err != nil {
		return errors.Join(err, w.kill(ctx, r, id)) // a process that nothing names must not live
	}
	return nil
}

// vmmLog is the VMM's own output in the VM's directory.
const vmmLog = "vmm.log"

// prepared is what a VMM is started with.
type prepared struct {
	root disk.Attached
	net  network.Attached
	boot kernel.Boot
}

// prepare makes a VM's directories, its disks and its interface. Each act is idempotent: a start after a crash repeats it.
func (w *worker) prepare(ctx context.Context, r vm.VMRecord) (p prepared, err error) {
	e, rt := w.e, r.Runtime
	for _, dir := range []struct{ what, path string }{{"vm-directory", rt.VMDir}, {"run-directory", e.Paths.VMRun(r.ID)}} {
		if err := act.Do(ctx, dir.what, func() error { return os.MkdirAll(dir.path, 0o700) }); err != nil {
			return p, noSpace(fmt.Errorf("make the VM's directory: %w", err))
		}
	}
	disks, err := e.disk(r.Disk)
	if err != nil {
		return p, err
	}
	if guard, ok := disks.(disk.Guard); ok {
		if err := w.repairDisk(ctx, r, disks, guard); err != nil {
			return p, err
		}
		if err := e.Limits.space(e.Paths.VMs(), 2*guardReserve); err != nil { // its guest would wait from the start
			return p, err
		}
	}
	// None of these needs another, and most of their time is waiting: for the disk, and for programs.
	var group string
	var limited bool
	var limitError error
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if p.root, err = disks.Ensure(gctx, e.overlay(r)); err != nil {
			return noSpace(fmt.Errorf("make the system disk: %w", err))
		}
		return nil
	})
	g.Go(func() error {
		if err := e.WorkDisk(gctx, rt.WorkDiskPath, r.Spec.DiskSize); err != nil {
			return noSpace(fmt.Errorf("make the work disk: %w", err))
		}
		return nil
	})
	g.Go(func() (err error) {
		p.net, err = w.plug(gctx, r)
		return err
	})
	g.Go(func() (err error) {
		if p.boot, err = e.Kernels.Boot(gctx, r.KernelDigest); err != nil {
			return fmt.Errorf("get kernel %s: %w", r.Kernel, err)
		}
		return nil
	})
	g.Go(func() error {
		group, limited, limitError = e.Cgroups.Ensure(gctx, r.ID, e.limitsOf(r))
		return nil
	})
	if err := g.Wait(); err != nil {
		return p, err
	}
	if limitError != nil || !limited { // belonging to its caller's, or to nobody's bounds, is a lesser evil than not running
		e.Log.Warn("the VM is not held within the bounds of a cgroup of its own", "vm", r.Name, "id", r.ID, "cgroup", group, "error", limitError)
	}
	h := vm.VMHandles{BootID: e.BootID, Cgroup: group, TapDevice: p.net.TapDevice,
		BaseLoop: p.root.BaseLoop, CowLoop: p.root.CowLoop, DMName: p.root.DMName, DMDev: p.root.DMDev,
		LaunchedVCPU: r.Spec.VCPU, LaunchedMemoryMiB: r.Spec.MemoryMiB, LaunchedDiskSize: r.Spec.DiskSize}
	return p, e.Handles.Set(ctx, r.ID, rt.VMDir, h)
}

// plug gives the machine its interface. What that is part of may still be missing: reach attaches it.
func (w *worker) plug(ctx context.Context, r vm.VMRecord) (network.Attached, error) {
	net, err := w.e.network(r.Network)
	if err != nil {
		return network.Attached{}, err
	}
	plugger, ok := net.(network.Plugger)
	if !ok {
		return w.attach(ctx, r)
	}
	a, err := plugger.Plug(ctx, portOf(r))
	if err != nil {
		return network.Attached{}, fmt.Errorf("attach network %s: %w", r.Network, err)
	}
	return a, nil
}

// attach makes all of a VM's network, and what it shares with others. Done twice it changes nothing.
func (w *worker) attach(ctx context.Context, r vm.VMRecord) (network.Attached, error) {
	net, err := w.e.network(r.Network)
	if err != nil {
		return network.Attached{}, err
	}
	if err := w.e.applyNetwork(ctx, net, ""); err != nil {
		return network.Attached{}, err
	}
	a, err := net.Ensure(ctx, portOf(r))
	if err != nil {
		return network.Attached{}, fmt.Errorf("attach network %s: %w", r.Network, err)
	}
	return a, nil
}

// ownCPUs is what a VMM may take beside what its guest's processors run on: it serves the guest's devices on threads of its
// own. Without it a guest that boots at full speed was throttled for a tenth of the time.
const ownCPUs = 1

// tableShare is which part of a guest's memory the kernel may need beside it, on the VM's account. Without huge pages the VMM's
// page tables and KVM's take 8 bytes each for a page of 4 KiB, 1/256 in all, and KVM's reverse map may take as much as one of
// them. A fixed allowance would be used up by a large guest, which would be killed for touching the memory that it was given.
const tableShare = 128

// limitsOf is what a VM's processes may take of the host: none where it is not known what the VMM needs for itself.
func (e *Engine) limitsOf(r vm.VMRecord) cgroup.Limits {
	d, err := e.vmm(r.VMM)
	if err != nil || d.Features().Overhead == 0 {
		return cgroup.Limits{}
	}
	guest := r.Spec.MemoryMiB << 20
	return cgroup.Limits{Memory: guest + guest/tableShare + d.Features().Overhead<<20, CPUs: r.Spec.VCPU + ownCPUs}
}

// refOf names a VM's machine to its driver.
func refOf(r vm.VMRecord) vmm.Ref {
	return vmm.Ref{ID: r.ID, Dir: r.Runtime.VMDir, APISock: r.Runtime.APISockPath, AgentSock: r.Runtime.VSockPath}
}

// portOf is a VM's place in its network.
func portOf(r vm.VMRecord) network.Port {
	addr, _ := netip.ParseAddr(r.Runtime.GuestIP) // zero where there is none
	return network.Port{ID: r.ID, Name: r.Name, Addr: addr, UID: r.Runtime.UID}
}

func (e *Engine) overlay(r vm.VMRecord) disk.Overlay {
	return disk.Overlay{ID: string(r.ID), Base: e.Images.RootPath(r.ImageDigest), Path: r.Runtime.SystemOverlay}
}

// hostKey makes or reads the VM's ssh host key, and pins it.
func hostKey(ctx context.Context, r vm.VMRecord) (sshkey.Key, error) {
	key, err := sshkey.Ensure(ctx, filepath.Join(r.Runtime.VMDir, "ssh_host_ed25519_key"), r.Runtime.DNSName)
	if err != nil {
		return sshkey.Key{}, err
	}
	return key, sshkey.Pin(ctx, filepath.Join(r.Runtime.VMDir, "known_hosts"), r.Runtime.DNSName, key)
}

// SSHAccess is what an ssh client on this host needs to reach a VM.
func (e *Engine) SSHAccess(r vm.VMRecord) *api.SSHAccess {
	return &api.SSHAccess{User: "root", IdentityFile: e.Paths.SSHKey(),
		KnownHosts: filepath.Join(r.Runtime.VMDir, "known_hosts"), HostKeyAlias: r.Runtime.DNSName}
}

// stage reports a stage of this VM's start.
func (w *worker) stage(r vm.VMRecord, name string) func(error) {
	return vm.Report(w.e.events.publish).Stage(vm.Event{VM: r.ID, Name: r.Name}, name)
}

// untilExit returns a context that also ends when the process does.
func (w *worker) untilExit(ctx context.Context, id proc.Identity) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if w.e.Processes.Wait(ctx, id) == nil {
			cancel()
		}
	}()
	return ctx, cancel
}
