package cli

import (
	"net/http"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// fakeBoot is when guests of the fake booted, all at once.
var fakeBoot = time.Now()

// stats answers with a guest that is busy half of its time, a VMM that is all of it, and nothing of a VM that does not run.
// The guest of image "slow" never answers, and of the VM "sick" the daemon cannot say anything.
func (f *fake) stats(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if record.Name == "sick" {
		refuse(w, vm.Errorf(vm.CodeInternal, "look at VM sick: input/output error"))
		return
	}
	s := api.VMStats{ID: record.ID, Name: record.Name, State: record.State, VCPU: 1, At: time.Now(), Host: api.HostStats{SystemDisk: 20 << 20, WorkDisk: 4 << 20}}
	up := s.At.Sub(fakeBoot).Milliseconds()
	switch record.State {
	case vm.StateRunning:
		s.Host.PID, s.Host.CPUMs, s.Host.Resident = 4711, up, 200<<20
		s.Guest = &guest.Stats{UptimeMs: up, MemTotal: 512 << 20, MemAvailable: 400 << 20, CPUUserMs: up / 2, Processes: 17,
			NetReceived: 5 << 10, NetSent: 6 << 10, DiskRead: 7 << 20, DiskWritten: 8 << 20}
	case vm.StateStarting:
		s.Host.PID, s.Host.CPUMs, s.Host.Resident, s.Error = 4712, up, 100<<20, "its agent does not answer yet"
	default:
		s.Error = "it does not run"
	}
	answer(w, s)
}

// top lists two processes and a thread of the kernel, of five that the guest has.
func (f *fake) top(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if err := f.await(r, record); err != nil {
		refuse(w, err)
		return
	}
	answer(w, guest.Processes{UptimeMs: 100_000, Total: 5, Processes: []guest.Process{
		{PID: 1, User: "root", State: "S", Threads: 1, CPUMs: 1000, StartedMs: 0, Resident: 3 << 20, Command: "/sbin/init"},
		{PID: 2, User: "root", State: "I", Threads: 1, Command: "[kthreadd]", Kernel: true},
		{PID: 70, PPID: 1, User: "nobody", State: "R", Threads: 2, CPUMs: 75_000, StartedMs: 50_000, Resident: 1 << 20, Command: "sh -c while :; do :; done"},
	}})
}
