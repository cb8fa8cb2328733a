package cli

import (
	"encoding/json"
	"net/http"

	"banger/internal/api"
	"banger/internal/vm"
)

// pause is for a VM that is in one state, or the other already.
func (f *fake) pause(from, to vm.State) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		record := f.lookup(w, r)
		if record == nil {
			return
		}
		if record.State != from && record.State != to {
			refuse(w, vm.Errorf(vm.CodeNotRunning, "VM %s is not running (%s)", record.Name, record.State))
			return
		}
		f.set(record, to)
		stream(w, api.Message{Done: true, VM: record})
	}
}

func (f *fake) reset(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	var req api.ResetRequest
	json.NewDecoder(r.Body).Decode(&req)
	if record.State != vm.StateStopped && !req.Force {
		refuse(w, vm.Errorf(vm.CodeConflict, "reset VM %s: it is %s", record.Name, record.State).WithHint("banger vm stop %s, or reset it with --force", record.Name))
		return
	}
	f.set(record, vm.StateStopped)
	stream(w, api.Message{Event: stageEvent(record, "reset", "begin")}, api.Message{Event: stageEvent(record, "reset", "end")}, api.Message{Done: true, VM: record})
}

// setSpec changes a VM. A work disk does not shrink.
func (f *fake) setSpec(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	var req api.SetRequest
	json.NewDecoder(r.Body).Decode(&req)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &record.Spec
	if req.DiskSize > 0 && req.DiskSize < s.DiskSize {
		refuse(w, vm.Errorf(vm.CodeInvalid, "the work disk of VM %s can grow, not shrink", record.Name))
		return
	}
	m := api.Message{Done: true, VM: record}
	if req.VCPU > 0 {
		s.VCPU, m.Pending = req.VCPU, append(m.Pending, api.PendingVCPU)
	}
	if req.MemoryMiB > 0 {
		s.MemoryMiB, m.Pending = req.MemoryMiB, append(m.Pending, api.PendingMemory)
	}
	s.DiskSize = max(s.DiskSize, req.DiskSize)
	if req.Restart != "" {
		s.Restart = req.Restart
	}
	for k, v := range req.Labels {
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[k] = v
	}
	for _, k := range req.RemoveLabels {
		delete(s.Labels, k)
	}
	if record.State != vm.StateRunning {
		m.Pending = nil
	}
	stream(w, m)
}

func (f *fake) rename(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	var req api.RenameRequest
	json.NewDecoder(r.Body).Decode(&req)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(req.Name); err == nil {
		refuse(w, vm.Errorf(vm.CodeExists, "there is a VM %q already", req.Name).WithHint("choose another name"))
		return
	}
	record.Name, record.Runtime.DNSName = req.Name, req.Name+".vm"
	m := api.Message{Done: true, VM: record}
	if record.State != vm.StateRunning {
		m.Pending = []string{api.PendingHostname}
	}
	stream(w, m)
}
