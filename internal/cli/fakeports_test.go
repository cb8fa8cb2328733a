package cli

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// fakePorts gives ports without a number one.
func fakePorts(ports []vm.Port) []vm.Port {
	for i := range ports {
		if ports[i].HostPort == 0 {
			ports[i].HostPort = 40000 + ports[i].GuestPort
		}
	}
	return ports
}

// published are the ports of a VM: open while it runs, but for one at port 9999, which somebody else has.
func (f *fake) published(r *vm.VMRecord) []api.PortStatus {
	all := []api.PortStatus{}
	for _, p := range r.Spec.Ports {
		s := api.PortStatus{Port: p, State: api.PortClosed}
		switch {
		case r.State != vm.StateRunning:
		case p.HostPort == 9999:
			s.State, s.Error, s.RetryAt = api.PortFailed, "process 7 (nginx) has it", time.Now().Add(150*time.Minute)
		default:
			s.State, s.Connections = api.PortOpen, p.GuestPort%3
		}
		all = append(all, s)
	}
	return all
}

// ports are those, and what guests of the fake listen on.
func (f *fake) ports(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	all := api.VMPorts{Published: f.published(record), Listeners: []guest.Listener{}}
	if record.State == vm.StateRunning {
		all.Listeners = []guest.Listener{
			{Protocol: "tcp", Address: "0.0.0.0", Port: 80, PID: 7, Process: "nginx\x1b[2J"}, {Protocol: "udp", Address: "127.0.0.53", Port: 53},
		}
	} else {
		all.Error = "it does not run"
	}
	answer(w, all)
}

func (f *fake) changePorts(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	var req api.PortsRequest
	json.NewDecoder(r.Body).Decode(&req)
	for _, word := range req.Remove {
		found, _ := vm.MatchPorts(record.Spec.Ports, word)
		if len(found) == 0 {
			refuse(w, vm.Errorf(vm.CodeNotFound, "VM %s publishes no port %s", record.Name, word).WithHint("banger vm ports %s", record.Name))
			return
		}
		record.Spec.Ports = slices.DeleteFunc(record.Spec.Ports, func(p vm.Port) bool { return slices.Contains(found, p) })
	}
	record.Spec.Ports = append(record.Spec.Ports, fakePorts(req.Add)...)
	stream(w, api.Message{Done: true, VM: record})
}
