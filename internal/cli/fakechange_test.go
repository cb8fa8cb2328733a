package cli

import (
	"encoding/json"
	"net/http"

	"banger/internal/api"
	"banger/internal/vm"
)

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
