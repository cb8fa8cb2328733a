package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/handles"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/network/none"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// world is a host that outlives its daemons: files and database on a real file system, processes in memory.
type world struct {
	t      *testing.T
	host   *fake.Host
	paths  paths.Paths
	faults faults
	shared *sharing // the network, where VMs share something; nil: they do not
	store  *guarded // makes disks that have to be guarded; nil: they need not
	jails  bool     // VMMs run in jails, and write metrics, from the next life of the daemon on
	log    io.Writer

	turns    atomic.Int32 // how often a VMM was asked whether its machine runs
	asked    atomic.Int32 // and whether it waits for room
	ensured  atomic.Int32 // images and kernels asked for
	held     atomic.Int32 // of them, those that must not be deleted
	workDisk atomic.Int64 // bytes that the last one was asked to have
}

// faults make host acts fail on demand.
type faults struct {
	detach, removeNet error
	remove            error // of a system disk
	workDisk          error
	flattening        func() // called when a disk has been read, if not nil

	detaching, mayDetach chan struct{} // not nil: a detach says that it is there, and waits
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, host: fake.NewHost(), paths: paths.Under(t.TempDir()), log: io.Discard}
	must(t, os.MkdirAll(w.paths.VMs(), 0o700))
	must(t, os.MkdirAll(filepath.Join(w.paths.Images(), "x"), 0o700))
	must(t, os.WriteFile(images{w}.RootPath(""), []byte("root file system"), 0o600))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is one life of the daemon over the world.
type daemon struct {
	*Engine
	t *testing.T
}

// start begins a life. It ends with the test, or with kill.
func (w *world) start() *daemon {
	w.t.Helper()
	d := w.begin()
	must(w.t, d.Recover(w.t.Context()))
	return d
}

// begin is a life whose VMs nobody has looked at yet.
func (w *world) begin() *daemon {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), w.paths.Database())
	must(w.t, err)
	e := New(w.t.Context(), Config{
		Store: db, Handles: handles.NewCache(), Paths: w.paths, Images: images{w}, Kernels: kernels{w},
		VMMs: []vmm.Driver{&onePort{Driver: fake.New(w.host, "qemu"), jails: w.jails, host: w.host, turns: &w.turns, asked: &w.asked, ports: map[string]chan struct{}{}}}, Disks: []disk.Driver{w.disk()},
		Networks: []network.Driver{w.network()}, Processes: w.host, BootID: w.host.BootID(),
		WorkDisk: func(_ context.Context, path string, size int64) error {
			w.workDisk.Store(size)
			return errors.Join(w.faults.workDisk, os.WriteFile(path, nil, 0o600))
		},
		Defaults: Defaults{VCPU: 1, MemoryMiB: 256, DiskSize: 1 << 30, Image: "img", Kernel: "kern", VMM: "auto", Disk: "auto", Network: "auto"},
		UIDs:     UIDs{First: 900000, Count: 2},
		Limits:   Limits{MemoryMiB: 4096, FreeBytes: func(string) (uint64, error) { return 1 << 40, nil }},
		Log:      slog.New(slog.NewTextHandler(w.log, nil)),
	})
	d := &daemon{e, w.t}
	w.t.Cleanup(d.kill)
	return d
}

// kill ends a life with nothing tidied up: Close stops the workers where they are.
func (d *daemon) kill() {
	d.Close()
	_ = d.Store.Close()
}

// images and kernels are libraries with one entry each.
type images struct{ w *world }

// BuildBase is the one image there is, held; "there" has been made of it already.
func (i images) BuildBase(_ context.Context, o image.BuildOptions, _ string, _ vm.Report) (image.Base, error) {
	img := vm.Image{Name: "", Digest: "sha256:i"}
	if o.Name == "there" {
		img.Name = o.Name
		return image.Base{Image: img}, nil
	}
	i.w.held.Add(1)
	return image.Base{Image: img, Release: func() { i.w.held.Add(-1) }, Adopt: image.AdoptOptions{What: "build image " + o.Name, Name: o.Name, Source: "script"}}, nil
}

// Adopt has fill write a file, and keeps what is in it.
func (i images) Adopt(ctx context.Context, o image.AdoptOptions, fill func(context.Context, string) error, _ vm.Report) (vm.Image, error) {
	root := filepath.Join(i.w.paths.State, "adopted")
	if err := errors.Join(os.WriteFile(root, nil, 0o600), fill(ctx, root)); err != nil {
		return vm.Image{}, fmt.Errorf("%s: %w", o.What, err)
	}
	return vm.Image{Name: o.Name, Source: o.Source, Env: o.Env}, nil
}

func (images) Sweep(context.Context, string) error { return nil }

func (kernels) Sweep(context.Context, string) error { return nil }

func (i images) RootPath(string) string { return filepath.Join(i.w.paths.Images(), "x", "root.ext4") }

func (i images) Known(_ context.Context, name string) error {
	if name != "img" {
		return vm.Errorf(vm.CodeNotFound, "no image named %q", name)
	}
	return nil
}

func (i images) Use(_ context.Context, name string, _ vm.Report) (vm.Image, func(), error) {
	i.w.ensured.Add(1)
	i.w.held.Add(1)
	return vm.Image{Name: name, Digest: "sha256:i", Env: []string{"LANG=C.UTF-8"}}, func() { i.w.held.Add(-1) }, nil
}

type kernels struct{ w *world }

func (kernels) Known(_ context.Context, name string) error {
	if name != "kern" {
		return vm.Errorf(vm.CodeNotFound, "no kernel named %q", name)
	}
	return nil
}

func (k kernels) Use(_ context.Context, name string, _ vm.Report) (vm.Kernel, func(), error) {
	k.w.ensured.Add(1)
	k.w.held.Add(1)
	return vm.Kernel{Name: name, Digest: "sha256:k"}, func() { k.w.held.Add(-1) }, nil
}

func (kernels) Boot(context.Context, string) (kernel.Boot, error) {
	return kernel.Boot{Vmlinux: "/k/vmlinux", Initramfs: "/k/initramfs", ModulesDisk: "/k/modules.ext4", Release: "6.12"}, nil
}

type faultyDisk struct {
	disk.Driver
	w *world
}

func (d faultyDisk) Detach(ctx context.Context, o disk.Overlay) error {
	if err := d.w.faults.detach; err != nil {
		return err
	}
	if f := &d.w.faults; f.detaching != nil {
		f.detaching <- struct{}{}
		<-f.mayDetach
	}
	return d.Driver.Detach(ctx, o)
}

func (d faultyDisk) Flatten(ctx context.Context, o disk.Overlay, dst string) error {
	err := d.Driver.Flatten(ctx, o, dst)
	if f := d.w.faults.flattening; f != nil {
		f()
	}
	return err
}

func (d faultyDisk) Remove(ctx context.Context, o disk.Overlay) error {
	if err := d.w.faults.remove; err != nil {
		return err
	}
	return d.Driver.Remove(ctx, o)
}

type faultyNet struct {
	network.Driver
	w *world
}

func (w *world) network() network.Driver {
	if w.shared != nil {
		return w.shared
	}
	return faultyNet{none.New(), w}
}

func (n faultyNet) Remove(ctx context.Context, id vm.ID) error {
	if err := n.w.faults.removeNet; err != nil {
		return err
	}
	return n.Driver.Remove(ctx, id)
}

// run makes a VM that runs.
func (d *daemon) run(name string, rm bool) vm.VMRecord {
	d.t.Helper()
	r, err := d.Create(d.t.Context(), api.CreateRequest{Name: name, Start: true, AutoRemove: rm}, nil)
	must(d.t, err)
	r, err = d.Watch().Started(d.t.Context(), r.ID, nil)
	must(d.t, err)
	return r
}

// until waits for a state of the record.
func (d *daemon) until(id vm.ID, what string, done func(vm.VMRecord) bool) vm.VMRecord {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	r, err := d.Watch().until(ctx, id, nil, func(r vm.VMRecord) (bool, error) { return done(r), nil })
	if err != nil {
		d.t.Fatalf("waited for %s: %v; record %+v", what, err, r)
	}
	return r
}

func (d *daemon) untilGone(id vm.ID) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	must(d.t, d.Watch().Gone(ctx, id, nil))
}

// nothingLeft holds the world against "as before the first VM".
func (w *world) nothingLeft() {
	w.t.Helper()
	if ps := w.host.Running(); len(ps) > 0 {
		w.t.Errorf("processes are left: %+v", ps)
	}
	for _, dir := range []string{w.paths.VMs(), w.paths.Run} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
		for _, e := range entries {
			w.t.Errorf("%s is left", filepath.Join(dir, e.Name()))
		}
	}
}
