package engine

import (
	"os"
	"slices"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestSet(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Labels: map[string]string{"a": "1", "b": "2"}}, nil)
	must(t, err)
	now, pending, err := d.Set(t.Context(), "web", api.SetRequest{VCPU: 2, Labels: map[string]string{"b": "3", "c": ""}, RemoveLabels: []string{"a", "z"}})
	must(t, err)
	if now.Spec.VCPU != 2 || now.Spec.MemoryMiB != 256 || len(now.Spec.Labels) != 2 || now.Spec.Labels["b"] != "3" || len(pending) > 0 {
		t.Errorf("%+v, pending %q", now.Spec, pending)
	}
	if _, _, err := d.Set(t.Context(), "web", api.SetRequest{DiskSize: 1 << 29}); err != nil {
		t.Errorf("a disk that is not there yet may have any size: %v", err)
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
	now, pending, err = d.Set(t.Context(), "web", api.SetRequest{VCPU: 2, MemoryMiB: 512, DiskSize: 1 << 30, Labels: map[string]string{"d": "4"}})
	must(t, err)
	if want := []string{api.PendingMemory, api.PendingDiskSize}; !slices.Equal(pending, want) || now.Spec.MemoryMiB != 512 || now.State != vm.StateRunning {
		t.Errorf("pending %q, want %q; %+v", pending, want, now)
	}
	if got := d.Pending(now); !slices.Equal(got, pending) {
		t.Errorf("pending %q, after a change of %q", got, pending)
	}
	if _, pending, err := d.Set(t.Context(), "web", api.SetRequest{MemoryMiB: 256}); err != nil || len(pending) > 0 {
		t.Errorf("what it has is pending: %q, %v", pending, err)
	}
	_, _, err = d.Set(t.Context(), "web", api.SetRequest{MemoryMiB: 512})
	must(t, err)
	d.Close()
	d = w.start() // the next daemon knows it too
	d.until(r.ID, "its machine is found", func(r vm.VMRecord) bool { return d.Observe(r).Ready })
	now, err = d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if got := d.Pending(now); !slices.Equal(got, []string{api.PendingMemory, api.PendingDiskSize}) {
		t.Errorf("pending after a restart of the daemon: %q", got)
	}
	if c := w.host.Launched(); len(c) != 1 || c[0].VCPU != 2 || c[0].MemoryMiB != 256 {
		t.Errorf("launched %+v", c)
	}
	must(t, os.Truncate(r.Runtime.WorkDiskPath, 1<<30))
	_, err = d.Restart(t.Context(), "web", false, 0, nil)
	must(t, err)
	if c := w.host.Launched(); len(c) != 2 || c[1].MemoryMiB != 512 {
		t.Errorf("launched %+v", c)
	}
	if now, err = d.Store.VM(t.Context(), r.ID); err != nil || len(d.Pending(now)) > 0 {
		t.Errorf("after the restart: pending %q, %v", d.Pending(now), err)
	}
	if got := w.workDisk.Load(); got != 1<<30 {
		t.Errorf("its work disk was asked to have %d bytes", got)
	}
	before, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	for name, tt := range map[string]struct {
		req  api.SetRequest
		code vm.Code
	}{
		"nothing":         {api.SetRequest{}, vm.CodeInvalid},
		"a smaller disk":  {api.SetRequest{DiskSize: 1 << 29}, vm.CodeInvalid},
		"negative disk":   {api.SetRequest{DiskSize: -1}, vm.CodeInvalid},
		"huge disk":       {api.SetRequest{DiskSize: 1 << 60}, vm.CodeInvalid},
		"much memory":     {api.SetRequest{MemoryMiB: 8192}, vm.CodeInvalid},
		"little memory":   {api.SetRequest{MemoryMiB: 1}, vm.CodeInvalid},
		"many processors": {api.SetRequest{VCPU: 1000}, vm.CodeInvalid},
		"bad label":       {api.SetRequest{Labels: map[string]string{"a b": ""}}, vm.CodeInvalid},
	} {
		if _, _, err := d.Set(t.Context(), "web", tt.req); vm.CodeOf(err) != tt.code {
			t.Errorf("%s: %v (code %s), want code %s", name, err, vm.CodeOf(err), tt.code)
		}
	}
	if _, _, err := d.Set(t.Context(), "nobody", api.SetRequest{VCPU: 1}); !isNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	after, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if after.Spec.MemoryMiB != before.Spec.MemoryMiB || after.Spec.DiskSize != before.Spec.DiskSize || len(after.Spec.Labels) != len(before.Spec.Labels) {
		t.Errorf("what was refused has changed it: %+v", after.Spec)
	}
}
