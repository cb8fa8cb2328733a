package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/network"
	"banger/internal/publish"
	"banger/internal/vm"
	"banger/internal/vmm"
)

type chosenDisk struct {
	driver disk.Driver
	why    string
}

// Create commits the record of a new VM, stopped. Everything that can be refused is refused before; image and kernel
// are resolved to digests, and made when they are missing. Nothing is made for the VM itself yet.
func (e *Engine) Create(ctx context.Context, req api.CreateRequest, report vm.Report) (vm.VMRecord, error) {
	return e.createOn(ctx, req, e.Images, report)
}

// imageSource is where a VM's image comes from: Images.
type imageSource interface {
	Known(ctx context.Context, name string) error
	Use(ctx context.Context, name string, report vm.Report) (i vm.Image, release func(), err error)
}

// createOn is Create with an image from elsewhere.
func (e *Engine) createOn(ctx context.Context, req api.CreateRequest, images imageSource, report vm.Report) (vm.VMRecord, error) {
	spec := e.fill(req)
	if err := e.Limits.validate(spec); err != nil {
		return vm.VMRecord{}, err
	}
	if err := e.checkName(ctx, req.Name); err != nil {
		return vm.VMRecord{}, err
	}
	c, err := e.choose(ctx, spec)
	if err != nil {
		return vm.VMRecord{}, err
	}
	if err := e.checkDisk(ctx, spec.Disk, c.vmm.Name()); err != nil {
		return vm.VMRecord{}, err
	}
	if err := e.Limits.space(e.Paths.State, minFreeBytes); err != nil {
		return vm.VMRecord{}, err
	}
	ports, err := e.reserve(ctx, vm.VMRecord{Name: req.Name, Spec: spec}, spec.Ports)
	if err != nil {
		return vm.VMRecord{}, err
	}
	defer ports.Close()
	spec.Ports = ports.Ports()
	image, kernel, release, err := e.resolve(ctx, spec, images, report)
	defer release() // when the row tells of them, or there will be none
	if err != nil {
		return vm.VMRecord{}, err
	}
	if c.pending { // whether the VMM runs guests could not be found out before there was a kernel
		if c, err = e.choose(ctx, spec); err != nil {
			return vm.VMRecord{}, err
		}
		if err := e.checkDisk(ctx, spec.Disk, c.vmm.Name()); err != nil {
			return vm.VMRecord{}, err
		}
	}
	chosen, err := e.chooseDisk(ctx, spec.Disk, c.vmm.Name(), filepath.Dir(e.Images.RootPath(image.Digest)))
	if err != nil {
		return vm.VMRecord{}, err
	}
	spec.Init, spec.Env = image.Init, image.Env
	r := vm.VMRecord{
		Name: req.Name, Want: vm.WantStopped, Generation: 1, CreatedAt: time.Now(), Spec: spec,
		Image: image.Name, ImageDigest: image.Digest, Kernel: kernel.Name, KernelDigest: kernel.Digest,
		VMM: c.vmm.Name(), Disk: chosen.Name(), Network: c.net.Name(),
	}
	if req.Start {
		r.Want, r.Runtime.State = vm.WantRunning, vm.StateStarting
	} else {
		r.Runtime.State = vm.StateStopped
	}
	r, err = e.commitNew(ctx, r, c.vmm.Features(), c.net, ports)
	if err == nil && vm.CodeOf(c.passed) == vm.CodeConflict { // somebody may not know that it is so now; doctor tells of the rest
		text := fmt.Sprintf("%s gets %s with network %s, %v", r.Name, c.vmm.Name(), c.net.Name(), c.passed)
		if hint := vm.HintOf(c.passed); hint != "" {
			text += " (" + hint + ")"
		}
		report.Send(vm.Event{Kind: "note", VM: r.ID, Name: r.Name, Text: text})
	}
	return r, err
}

// commitNew gives the record its id (and name, when it has none) and commits it.
func (e *Engine) commitNew(ctx context.Context, r vm.VMRecord, features vmm.Features, net network.Driver, ports *publish.Reservation) (vm.VMRecord, error) {
	madeUp := r.Name == ""
	leases := e.leases(features, net)
	for attempt := 0; ; attempt++ {
		r.ID = vm.NewID()
		if madeUp {
			r.Name = randomName(attempt)
		}
		state := r.Runtime.State
		r.Runtime = e.derive(r.ID, r.Name)
		r.Runtime.State, r.State = state, state
		r.Runtime.GuestIP, r.Runtime.VSockCID = net.Address(), features.CID
		if features.Metrics {
			r.Runtime.MetricsPath = filepath.Join(r.Runtime.VMDir, "metrics.json")
		}
		created, err := e.Store.CreateVM(ctx, r, leases...)
		if err == nil {
			r = created
			break
		}
		if !madeUp || vm.CodeOf(err) != vm.CodeExists || attempt == nameAttempts {
			return vm.VMRecord{}, err
		}
	}
	e.stateEvent(r)
	if r.Want == vm.WantRunning {
		defer e.published.Hold(r.ID, r.Name, ports)(true)
		if w := e.worker(r.ID, false); w != nil {
			w.poke()
		}
	}
	return r, nil
}

// derive computes what follows from the identity by rule.
func (e *Engine) derive(id vm.ID, name string) vm.VMRuntime {
	dir, run := e.Paths.VMDir(id), e.Paths.VMRun(id)
	return vm.VMRuntime{
		APISockPath:   filepath.Join(run, "api.sock"),
		VSockPath:     filepath.Join(run, "agent.sock"),
		LogPath:       filepath.Join(dir, "console.log"),
		DNSName:       dnsName(name),
		VMDir:         dir,
		SystemOverlay: filepath.Join(dir, "system"),
		WorkDiskPath:  filepath.Join(dir, "work.ext4"),
	}
}

func dnsName(name string) string { return name + ".vm" }

// complete puts back what follows from the identity where a row could not be read whole: nothing of a VM may be lost, or
// left behind, with its row's JSON.
func (e *Engine) complete(r vm.VMRecord) vm.VMRuntime {
	if r.Runtime.VMDir != "" {
		return r.Runtime
	}
	rt := e.derive(r.ID, r.Name)
	rt.State, rt.LastError = r.Runtime.State, r.Runtime.LastError
	// Else a removal that failed would be tried again at once.
	rt.Attempts, rt.LastErrorAt, rt.RetryAt = r.Runtime.Attempts, r.Runtime.LastErrorAt, r.Runtime.RetryAt
	rt.Restarts, rt.RestartAt, rt.ResetDue = r.Runtime.Restarts, r.Runtime.RestartAt, r.Runtime.ResetDue
	return rt
}

func (e *Engine) fill(req api.CreateRequest) vm.Spec {
	d := e.Defaults
	return vm.Spec{
		VCPU: or(req.VCPU, d.VCPU), MemoryMiB: or(req.MemoryMiB, d.MemoryMiB), DiskSize: or(req.DiskSize, d.DiskSize),
		VMM: or(req.VMM, d.VMM), Disk: or(req.Disk, d.Disk), Network: or(req.Network, d.Network),
		ImageName: or(req.Image, d.Image), KernelName: or(req.Kernel, d.Kernel), AutoRemove: req.AutoRemove, Restart: req.Restart, Ports: req.Ports, Labels: req.Labels,
	}
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

func (e *Engine) checkName(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	if err := vm.ValidateName(name); err != nil {
		return err
	}
	r, err := e.Store.VMByRef(ctx, name)
	if err == nil && r.Name == name {
		return vm.Errorf(vm.CodeExists, "a VM named %q exists (%s)", name, r.Runtime.State).
			WithHint("choose another --name, or delete it: banger vm delete %s", name)
	}
	if err != nil && !isNotFound(err) && vm.CodeOf(err) != vm.CodeInvalid {
		return err
	}
	return nil
}

// checkDisk refuses a disk driver that was asked for and cannot be had, before there is an image to try it with: images
// lie below the state directory.
func (e *Engine) checkDisk(ctx context.Context, want, vmmName string) error {
	if want == disk.Auto || want == "" {
		return nil
	}
	_, _, err := disk.Choose(ctx, e.Disks, want, vmmName, e.Paths.State, e.Paths.VMs())
	return err
}

// chooseDisk probes once per wish: what works for one VM of this state directory works for all.
func (e *Engine) chooseDisk(ctx context.Context, want, vmmName, imageDir string) (disk.Driver, error) {
	e.choice.Lock()
	defer e.choice.Unlock()
	key := vmmName + "/" + want
	if c, ok := e.disks[key]; ok {
		return c.driver, nil
	}
	d, why, err := disk.Choose(ctx, e.Disks, want, vmmName, imageDir, e.Paths.VMs())
	if err != nil {
		return nil, err
	}
	e.disks[key] = chosenDisk{d, why}
	return d, nil
}

// resolve makes sure of image and kernel, both at once when both are missing. Neither is begun for the sake of a name
// of the other that nobody knows. Until release, which is to be called with an error too, neither is deleted.
func (e *Engine) resolve(ctx context.Context, spec vm.Spec, images imageSource, report vm.Report) (image vm.Image, kernel vm.Kernel, release func(), err error) {
	var releases [2]func()
	release = func() {
		for _, f := range releases {
			if f != nil {
				f()
			}
		}
	}
	if err := images.Known(ctx, spec.ImageName); err != nil {
		return image, kernel, release, err
	}
	if err := e.Kernels.Known(ctx, spec.KernelName); err != nil {
		return image, kernel, release, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		image, releases[0], err = images.Use(ctx, spec.ImageName, report)
		return err
	})
	g.Go(func() (err error) {
		kernel, releases[1], err = e.Kernels.Use(ctx, spec.KernelName, report)
		return err
	})
	err = g.Wait()
	return image, kernel, release, err
}
