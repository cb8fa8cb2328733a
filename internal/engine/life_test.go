package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/api"
	"banger/internal/handles"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

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
