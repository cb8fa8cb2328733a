package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"banger/internal/api"
	"banger/internal/plan"
	"banger/internal/vm"
)

// Set changes a VM's spec, as far as the host could give it. pending are those of api's Pending words that a VM that runs
// has only from its next start on.
func (e *Engine) Set(ctx context.Context, ref string, req api.SetRequest) (r vm.VMRecord, pending []string, err error) {
	if reflect.ValueOf(req).IsZero() {
		return r, nil, vm.Errorf(vm.CodeInvalid, "change VM %s: nothing to change was named", ref)
	}
	r, err = e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, nil, err
	}
	disk, err := workDiskSize(r)
	if err != nil {
		return r, nil, err
	}
	cancelled := false
	r, err = e.Store.Change(ctx, r.ID, func(r *vm.VMRecord) error {
		old, spec := r.Spec, changed(r.Spec, req)
		if r.Want == vm.WantRunning {
			disk = max(disk, old.DiskSize) // it may be made at this moment
		}
		if req.DiskSize > 0 && req.DiskSize < disk {
			return vm.Errorf(vm.CodeInvalid, "the work disk of VM %s has %d MiB: it can grow, not shrink to %d MiB", r.Name, disk>>20, req.DiskSize>>20)
		}
		if err := e.Limits.validate(spec); err != nil {
			return err
		}
		r.Spec, pending = spec, nil
		cancelled = cancelRestart(r)
		if r.Want == vm.WantRunning {
			// What is changed back to what the machine has waits for nothing.
			still := differing(e.launched(r.ID, old), spec)
			pending = slices.DeleteFunc(differing(old, spec), func(word string) bool { return !slices.Contains(still, word) })
		}
		return nil
	})
	if err == nil {
		e.stateEvent(r)
	}
	if w := e.known(r.ID); w != nil && cancelled {
		w.changed(r.Want)
	}
	return r, pending, err
}

// changed is a spec with what is asked for in it.
func changed(s vm.Spec, req api.SetRequest) vm.Spec {
	s.VCPU, s.MemoryMiB, s.DiskSize = or(req.VCPU, s.VCPU), or(req.MemoryMiB, s.MemoryMiB), or(req.DiskSize, s.DiskSize)
	s.Restart = or(req.Restart, s.Restart)
	s.Labels = maps.Clone(s.Labels)
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	maps.Copy(s.Labels, req.Labels)
	for _, key := range req.RemoveLabels {
		delete(s.Labels, key)
	}
	return s
}

// cancelRestart makes a stop of a restart that is still to come and that the policy does not want any more. One that is under
// way goes on.
func cancelRestart(r *vm.VMRecord) bool {
	p, err := vm.ParseRestart(r.Spec.Restart)
	if err != nil || p.When != vm.RestartNo || !plan.Pending(*r) || time.Now().After(r.Runtime.RestartAt) {
		return false
	}
	r.Generation++
	r.Want, r.Runtime.State = vm.WantStopped, vm.StateStopping
	r.Runtime.Restarts, r.Runtime.RestartAt = 0, time.Time{}
	return true
}

// Pending are those of api's Pending words of which a VM's machine has what was in its spec when it was launched, and from its
// next start on what is there now.
func (e *Engine) Pending(r vm.VMRecord) []string {
	words := differing(e.launched(r.ID, r.Spec), r.Spec)
	if len(words) == 0 || !e.vmAlive(r) { // in this order: a list asks of each VM, and it is seldom so
		return nil
	}
	return words
}

// launched is a spec with what the VM's machine was launched with. What is not known of it, since its scratch file was lost, or
// an older daemon's, is as the spec has it.
func (e *Engine) launched(id vm.ID, s vm.Spec) vm.Spec {
	h := e.Handles.Get(id)
	s.VCPU, s.MemoryMiB, s.DiskSize = or(h.LaunchedVCPU, s.VCPU), or(h.LaunchedMemoryMiB, s.MemoryMiB), or(h.LaunchedDiskSize, s.DiskSize)
	return s
}

// differing names what a machine is given when it is launched and not later.
func differing(a, b vm.Spec) (words []string) {
	if a.VCPU != b.VCPU {
		words = append(words, api.PendingVCPU)
	}
	if a.MemoryMiB != b.MemoryMiB {
		words = append(words, api.PendingMemory)
	}
	if a.DiskSize != b.DiskSize {
		words = append(words, api.PendingDiskSize)
	}
	return words
}

// workDiskSize is what a VM's work disk has, 0 before its first start: a size that the host turned out not to be able to give
// can be taken back.
func workDiskSize(r vm.VMRecord) (int64, error) {
	st, err := os.Stat(r.Runtime.WorkDiskPath)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the work disk of VM %s: %w", r.Name, err)
	}
	return st.Size(), nil
}
