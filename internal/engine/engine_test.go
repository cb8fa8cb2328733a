package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/handles"
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

	ensured  atomic.Int32 // images and kernels asked for
	workDisk atomic.Int64 // bytes that the last one was asked to have
}

// faults make host acts fail on demand.
type faults struct {
	detach, removeNet error
	remove            error // of a system disk
	workDisk          error

	detaching, mayDetach chan struct{} // not nil: a detach says that it is there, and waits
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, host: fake.NewHost(), paths: paths.Under(t.TempDir())}
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
		VMMs: []vmm.Driver{&onePort{Driver: fake.New(w.host, "qemu"), jails: w.jails, ports: map[string]chan struct{}{}}}, Disks: []disk.Driver{w.disk()},
		Networks: []network.Driver{w.network()}, Processes: w.host, BootID: w.host.BootID(),
		WorkDisk: func(_ context.Context, path string, size int64) error {
			w.workDisk.Store(size)
			return errors.Join(w.faults.workDisk, os.WriteFile(path, nil, 0o600))
		},
		Defaults: Defaults{VCPU: 1, MemoryMiB: 256, DiskSize: 1 << 30, Image: "img", Kernel: "kern", VMM: "auto", Disk: "auto", Network: "auto"},
		UIDs:     UIDs{First: 900000, Count: 2},
		Limits:   Limits{MemoryMiB: 4096, FreeBytes: func(string) (uint64, error) { return 1 << 40, nil }},
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
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

func (i images) RootPath(string) string { return filepath.Join(i.w.paths.Images(), "x", "root.ext4") }

func (i images) Known(_ context.Context, name string) error {
	if name != "img" {
		return vm.Errorf(vm.CodeNotFound, "no image named %q", name)
	}
	return nil
}

func (i images) Ensure(_ context.Context, name string, _ vm.Report) (vm.Image, error) {
	i.w.ensured.Add(1)
	return vm.Image{Name: name, Digest: "sha256:i", Env: []string{"LANG=C.UTF-8"}}, nil
}

type kernels struct{ w *world }

func (kernels) Known(_ context.Context, name string) error {
	if name != "kern" {
		return vm.Errorf(vm.CodeNotFound, "no kernel named %q", name)
	}
	return nil
}

func (k kernels) Ensure(_ context.Context, name string, _ vm.Report) (vm.Kernel, error) {
	k.w.ensured.Add(1)
	return vm.Kernel{Name: name, Digest: "sha256:k"}, nil
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

func TestLife(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	if r.State != vm.StateRunning || r.StartedAt.IsZero() || r.VMM != "qemu" || r.Disk != "copy" || r.ImageDigest != "sha256:i" {
		t.Errorf("running: %+v", r)
	}
	h := handles.Read(r.ID, r.Runtime.VMDir)
	if p, ok := w.host.ProcessOf(r.ID); !ok || h.PID != p.PID || h.BootID != w.host.BootID() || d.Handles.Get(r.ID) != h {
		t.Errorf("handles %+v, cache %+v, process %+v", h, d.Handles.Get(r.ID), p)
	}
	if o := d.Observe(r); !o.Alive || !o.Ready {
		t.Errorf("observed %+v", o)
	}
	c := w.host.Launched()[0]
	if c.VCPU != 1 || c.MemoryMiB != 256 || c.Root.Format != "raw" || c.Work == nil || !c.Modules.ReadOnly || c.NIC != nil {
		t.Errorf("launched %+v", c)
	}
	must(t, os.WriteFile(r.Runtime.SystemOverlay, []byte("changed by the guest"), 0o600))

	_, err := d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	r, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	if r.State != vm.StateStopped || r.Runtime.LastError != "" || !handles.Read(r.ID, r.Runtime.VMDir).IsZero() || exists(w.paths.VMRun(r.ID)) {
		t.Errorf("stopped: %+v", r)
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
	if b, _ := os.ReadFile(r.Runtime.SystemOverlay); string(b) != "changed by the guest" {
		t.Errorf("the system disk lost its content: %q", b)
	}
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

func TestRefusedBeforeAnythingIsMade(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	d.run("taken", false)
	before, ensured := len(w.host.Launched()), w.ensured.Load()
	for name, tt := range map[string]struct {
		req  api.CreateRequest
		code vm.Code
	}{
		"bad name":        {api.CreateRequest{Name: "Bad_Name"}, vm.CodeInvalid},
		"taken name":      {api.CreateRequest{Name: "taken"}, vm.CodeExists},
		"unknown image":   {api.CreateRequest{Image: "nope"}, vm.CodeNotFound},
		"unknown kernel":  {api.CreateRequest{Kernel: "nope"}, vm.CodeNotFound},
		"unknown vmm":     {api.CreateRequest{VMM: "bochs"}, vm.CodeInvalid},
		"unknown disk":    {api.CreateRequest{Disk: "floppy"}, vm.CodeInvalid},
		"unknown network": {api.CreateRequest{Network: "ipx"}, vm.CodeInvalid},
		"bad label":       {api.CreateRequest{Labels: map[string]string{"a b": ""}}, vm.CodeInvalid},
		"negative vcpu":   {api.CreateRequest{VCPU: -1}, vm.CodeInvalid},
		"too many vcpus":  {api.CreateRequest{VCPU: 1000}, vm.CodeInvalid},
		"little memory":   {api.CreateRequest{MemoryMiB: 1}, vm.CodeInvalid},
		"huge memory":     {api.CreateRequest{MemoryMiB: 1 << 40}, vm.CodeInvalid},
		"negative disk":   {api.CreateRequest{DiskSize: -5}, vm.CodeInvalid},
		"huge disk":       {api.CreateRequest{DiskSize: 1 << 60}, vm.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			tt.req.Start = true
			if _, err := d.Create(t.Context(), tt.req, nil); vm.CodeOf(err) != tt.code {
				t.Errorf("%v (code %s), want code %s", err, vm.CodeOf(err), tt.code)
			}
		})
	}
	t.Run("no space", func(t *testing.T) {
		d.Limits.FreeBytes = func(string) (uint64, error) { return 1 << 20, nil }
		if _, err := d.Create(t.Context(), api.CreateRequest{}, nil); vm.CodeOf(err) != vm.CodeNoSpace {
			t.Errorf("%v", err)
		}
	})
	t.Run("no VMM", func(t *testing.T) {
		w.host.Rule(fake.Rules{Probe: func() vmm.Probe { return vmm.Probe{Why: "not installed", Hint: "install it"} }})
		if _, err := d.Create(t.Context(), api.CreateRequest{}, nil); vm.CodeOf(err) != vm.CodeMissing || vm.HintOf(err) != "install it" {
			t.Errorf("%v", err)
		}
	})
	if n := w.ensured.Load() - ensured; n != 0 {
		t.Errorf("%d images and kernels were asked for, and would have been made", n)
	}
	all, err := d.Store.VMs(t.Context())
	if err != nil || len(all) != 1 || len(w.host.Launched()) != before {
		t.Errorf("%d records, %v; %d launches", len(all), err, len(w.host.Launched())-before)
	}
}

func TestAdoptedAfterTheDaemonDied(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	var before []vm.VMRecord
	for i := range 3 {
		before = append(before, d.run(fmt.Sprintf("v%d", i), false))
	}
	ps := w.host.Running()
	d.kill()
	must(t, os.Remove(filepath.Join(before[1].Runtime.VMDir, handles.FileName))) // the file is a hint, not a need
	must(t, os.WriteFile(filepath.Join(before[2].Runtime.VMDir, handles.FileName), []byte("{"), 0o600))

	d = w.start()
	for _, r := range before {
		c, err := d.Agent(t.Context(), r.Name)
		must(t, err)
		if hello, err := c.Hello(t.Context()); err != nil || hello.Hostname != r.Name {
			t.Errorf("%s: hello %+v, %v", r.Name, hello, err)
		}
		now, err := d.Store.VM(t.Context(), r.ID)
		must(t, err)
		p, _ := w.host.ProcessOf(r.ID)
		if now.State != vm.StateRunning || !now.StartedAt.Equal(r.StartedAt) || d.Handles.Get(r.ID).PID != p.PID || handles.Read(r.ID, r.Runtime.VMDir).PID != p.PID {
			t.Errorf("%s: %+v, handles %+v", r.Name, now, d.Handles.Get(r.ID))
		}
	}
	if now := w.host.Running(); fmt.Sprint(now) != fmt.Sprint(ps) {
		t.Errorf("processes %v, before %v", now, ps)
	}
	must(t, w.host.Signal(ps[0], 9))
	d.until(before[0].ID, "an adopted VM's end to be noticed", func(r vm.VMRecord) bool { return r.State == vm.StateStopped && r.Runtime.LastError != "" })
	for _, r := range before {
		_, err := d.Delete(t.Context(), r.Name)
		must(t, err)
		d.untilGone(r.ID)
	}
	w.nothingLeft()
}

func TestDemotedWhenBothDied(t *testing.T) {
	for name, die := range map[string]func(*world, vm.VMRecord){
		"VMM killed":    func(w *world, r vm.VMRecord) { p, _ := w.host.ProcessOf(r.ID); _ = w.host.Signal(p, 9) },
		"host rebooted": func(w *world, _ vm.VMRecord) { w.host.Reboot() },
		"pid reused": func(w *world, r vm.VMRecord) {
			p, _ := w.host.ProcessOf(r.ID)
			_ = w.host.Signal(p, 9)
			_, _ = w.host.Reuse(p.PID)
		},
		"no scratch file": func(w *world, r vm.VMRecord) {
			w.host.Reboot()
			_ = os.Remove(filepath.Join(r.Runtime.VMDir, handles.FileName))
		},
		"run dir was lost": func(w *world, r vm.VMRecord) { w.host.Reboot(); _ = os.RemoveAll(w.paths.Run) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			d.kill()
			die(w, r)
			d = w.start()
			now := d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
			if now.Want != vm.WantStopped || now.Runtime.LastError == "" || exists(w.paths.VMRun(r.ID)) || !handles.Read(r.ID, r.Runtime.VMDir).IsZero() {
				t.Errorf("demoted: %+v", now)
			}
			if name == "pid reused" && !w.host.Alive(stranger(w)) {
				t.Error("an unrelated process was killed")
			}
			_, err := d.Start(t.Context(), "web")
			must(t, err)
			_, err = d.Watch().Started(t.Context(), r.ID, nil)
			must(t, err)
		})
	}
}

func TestTheVMMDies(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	must(t, w.host.Signal(p, 9))
	now := d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	if !strings.Contains(now.Runtime.LastError, "killed") || exists(w.paths.VMRun(r.ID)) {
		t.Errorf("%+v", now)
	}
	if _, err := d.Agent(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || !strings.Contains(err.Error(), "killed") {
		t.Errorf("agent of a stopped VM: %v", err)
	}
	r = func() vm.VMRecord {
		_, err := d.Start(t.Context(), "web")
		must(t, err)
		r, err := d.Watch().Started(t.Context(), r.ID, nil)
		must(t, err)
		return r
	}()
	p, _ = w.host.ProcessOf(r.ID)
	must(t, w.host.Exit(p, "exit status 0"))
	now = d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	if now.Runtime.LastError != "" {
		t.Errorf("a guest that powered itself off is no error: %q", now.Runtime.LastError)
	}
}

func TestStartFails(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	for name, rules := range map[string]fake.Rules{
		"launch refused":    {Launch: func(vmm.Config) error { return errors.New("no such luck") }},
		"configure refused": {Configure: func(vmm.Config, fake.GuestConfigure) error { return errors.New("no such luck") }},
	} {
		t.Run(name, func(t *testing.T) {
			w.host.Rule(rules)
			defer w.host.Rule(fake.Rules{})
			r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
			must(t, err)
			_, err = d.Watch().Started(t.Context(), r.ID, nil)
			if err == nil || !strings.Contains(err.Error(), "no such luck") {
				t.Errorf("error %v", err)
			}
			now := d.until(r.ID, "error", func(r vm.VMRecord) bool { return r.State == vm.StateError })
			if now.Want != vm.WantStopped || len(w.host.Running()) != 0 || exists(w.paths.VMRun(r.ID)) {
				t.Errorf("%+v, running %v", now, w.host.Running())
			}
			_, err = d.Delete(t.Context(), r.Name)
			must(t, err)
			d.untilGone(r.ID)
		})
	}
	t.Run("its VMM dies while the guest boots", func(t *testing.T) {
		w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return nil }})
		defer w.host.Rule(fake.Rules{})
		r, err := d.Create(t.Context(), api.CreateRequest{Start: true, AutoRemove: true}, nil)
		must(t, err)
		result := make(chan error, 1)
		go func() { _, err := d.Watch().Started(t.Context(), r.ID, nil); result <- err }()
		p := waitForProcess(t, w, r.ID)
		must(t, w.host.Exit(p, "exit status 1"))
		if err := <-result; err == nil || !strings.Contains(err.Error(), "exit status 1") {
			t.Errorf("error %v", err)
		}
		d.untilGone(r.ID) // made with --rm
	})
	w.nothingLeft()
}

func TestStopWhileStarting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return nil }})
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	waitForProcess(t, w, r.ID)
	_, err = d.Stop(t.Context(), r.Name, true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	_, err = d.Delete(t.Context(), r.Name)
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

func TestStopInsists(t *testing.T) {
	no := func(vmm.Config) bool { return false }
	for name, rules := range map[string]fake.Rules{
		"the guest ignores it":              {PowerOff: no},
		"the guest and the VMM ignore it":   {PowerOff: no, Quit: no, Terminate: no},
		"a hung guest answers nothing more": {PowerOff: no, Quit: no},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			w.host.Rule(rules)
			_, err := d.Stop(t.Context(), "web", false, 50*time.Millisecond)
			must(t, err)
			_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
			must(t, err)
			if len(w.host.Running()) != 0 {
				t.Error("it still runs")
			}
		})
	}
}

func TestRemovedWithItsSession(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	t.Run("when it ends", func(t *testing.T) {
		r := d.run("", true)
		_, end, err := d.Session(t.Context(), r.Name)
		must(t, err)
		if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Want != vm.WantRunning {
			t.Fatalf("%+v, %v", now, err)
		}
		end()
		d.untilGone(r.ID)
	})
	t.Run("when the daemon dies under it", func(t *testing.T) {
		r := d.run("", true)
		stays := d.run("stays", false)
		_, _, err := d.Session(t.Context(), r.Name)
		must(t, err)
		d.kill()
		d = w.start()
		d.untilGone(r.ID)
		_, err = d.Agent(t.Context(), stays.Name)
		must(t, err)
		_, err = d.Delete(t.Context(), stays.Name)
		must(t, err)
		d.untilGone(stays.ID)
	})
	w.nothingLeft()
}

func TestSessionIsWaitedFor(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		s    session
		want bool
		due  bool
	}{
		"still booting":         {session{}, true, false},
		"may come":              {session{until: now.Add(time.Second)}, true, true},
		"did not come":          {session{until: now.Add(-time.Second)}, false, true},
		"running":               {session{running: 1, until: now.Add(-time.Hour)}, true, false},
		"over":                  {session{over: true, until: now.Add(time.Hour)}, false, false},
		"one over, one running": {session{running: 1, over: true}, true, false},
	} {
		if got := tt.s.due(now) > 0; got != tt.due {
			t.Errorf("%s: due %v", name, got)
		}
		if got := tt.s.present(now); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFailedRemovalIsRetriedAndKeepsTheRow(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	w.faults.detach, w.faults.removeNet = errors.New("device busy"), errors.New("link busy")
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	err = d.Watch().Gone(t.Context(), r.ID, nil)
	if err == nil || !strings.Contains(err.Error(), "device busy") || !strings.Contains(err.Error(), "link busy") {
		t.Fatalf("every step's error must be told: %v", err)
	}
	now, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if now.State != vm.StateRemoving || now.Runtime.RetryAt.IsZero() || handles.Read(r.ID, r.Runtime.VMDir).IsZero() {
		t.Errorf("a failed removal must keep the row and what it needs: %+v", now)
	}
	d.kill() // the retry is durable
	w.faults = faults{}
	d = w.start()
	d.untilGone(r.ID)
	w.nothingLeft()
}

func TestNoSpaceWhileStarting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.faults.workDisk = &os.PathError{Op: "write", Path: "work.ext4", Err: noSpaceErrno}
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if vm.CodeOf(err) != vm.CodeNoSpace || !strings.Contains(err.Error(), "no space left") || !strings.Contains(vm.HintOf(err), "free some space") {
		t.Errorf("%v, code %s, hint %q", err, vm.CodeOf(err), vm.HintOf(err))
	}
}

// A start that never came to a boot has no console to look at.
func TestHintOfAFailedStart(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.faults.workDisk = errors.New("the disk is odd")
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if !strings.Contains(err.Error(), "the disk is odd") || !strings.Contains(vm.HintOf(err), "banger doctor") {
		t.Errorf("before a boot: %v, hint %q", err, vm.HintOf(err))
	}
	must(t, os.WriteFile(r.Runtime.LogPath, []byte("Linux version\n"), 0o600))
	_, err = d.Start(t.Context(), string(r.ID))
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if !strings.Contains(vm.HintOf(err), "banger vm logs "+r.Name) {
		t.Errorf("with a console: %v, hint %q", err, vm.HintOf(err))
	}
}

func TestHangingUpOnlyStopsWaiting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	ready := make(chan struct{})
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return ready }})
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	waitForProcess(t, w, r.ID)
	cancel()
	if _, err := d.Watch().Started(ctx, r.ID, nil); err == nil {
		t.Error("a cancelled wait succeeded")
	}
	close(ready)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
}

func TestAVMWithABrokenRowIsRemovedWhole(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	d.kill()
	db, err := sql.Open("sqlite", w.paths.Database())
	must(t, err)
	_, err = db.Exec(`UPDATE vms SET runtime = '{', spec = '{'`)
	must(t, errors.Join(err, db.Close()))
	d = w.start()
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// silent is a driver whose guests take connections and never say a word, as a hostile one can.
type silent struct{ vmm.Driver }

func (silent) Multiplexed() bool { return true }

func (silent) DialAgent(context.Context, vmm.Ref) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return ours, nil
}

func TestAGuestThatNeverAnswersHoldsNobody(t *testing.T) {
	a := newAgent(silent{}, vmm.Ref{AgentSock: "/x"})
	asked := make(chan error, 2)
	for range 2 { // one begins the session, one waits for it; neither has an end of its own
		go func() { _, err := a.dial(context.Background()); asked <- err }()
	}
	closed := make(chan struct{})
	go func() { a.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("close waits for the guest")
	}
	for range 2 {
		select {
		case err := <-asked:
			if err == nil {
				t.Error("a session with nobody")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("who waits for a session is not told")
		}
	}
}

func TestAStartThatCannotBeCleanedUpIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	launches := atomic.Int32{}
	w.host.Rule(fake.Rules{Launch: func(vmm.Config) error { launches.Add(1); return errors.New("no such luck") }})
	w.faults.detach = errors.New("device busy")
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	now := d.until(r.ID, "a failed clean-up", func(r vm.VMRecord) bool { return r.Runtime.Attempts > 0 })
	if now.Want != vm.WantStopped || !strings.Contains(now.Runtime.LastError, "device busy") || !strings.Contains(now.Runtime.LastError, "no such luck") {
		t.Errorf("%+v", now)
	}
	time.Sleep(200 * time.Millisecond)
	if n := launches.Load(); n != 1 {
		t.Errorf("launched %d times", n)
	}
	w.faults = faults{}
	_, err = d.Delete(t.Context(), r.Name)
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}
