package engine

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// What cannot be told of a VM is left out: a guest that hangs, or a VM that does not run, is no error.
func TestStats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	s, err := d.Stats(t.Context(), "web")
	must(t, err)
	if s.ID != r.ID || s.Name != "web" || s.State != vm.StateRunning || s.VCPU != r.Spec.VCPU || s.At.IsZero() || s.Error != "" {
		t.Errorf("%+v", s)
	}
	if s.Guest == nil || s.Guest.MemTotal != 512<<20 || s.Guest.Processes != 2 {
		t.Errorf("the guest: %+v", s.Guest)
	}
	process, _ := w.host.ProcessOf(r.ID)
	if s.Host.PID != process.PID || s.Host.CPUMs != 1000 || s.Host.Resident != 64<<20 || s.Host.SystemDisk <= 0 {
		t.Errorf("the host: %+v", s.Host)
	}

	if p, err := d.GuestProcesses(t.Context(), "web"); err != nil || len(p.Processes) != 1 || p.Processes[0].Command != "/sbin/init [2J" {
		t.Errorf("its processes: %+v, %v", p, err)
	}

	must(t, w.host.Signal(process, unix.SIGSTOP))
	s, err = d.Stats(t.Context(), "web")
	must(t, err)
	if s.Guest != nil || !strings.Contains(s.Error, "did not answer within") || s.Host.CPUMs != 1000 {
		t.Errorf("a guest that hangs: %+v", s)
	}
	must(t, w.host.Signal(process, unix.SIGCONT))

	_, err = d.Pause(t.Context(), "web")
	must(t, err)
	s, err = d.Stats(t.Context(), "web")
	must(t, err)
	if s.Guest != nil || s.Error != "it is paused" || s.State != vm.StatePaused || s.Host.PID != process.PID {
		t.Errorf("paused: %+v", s)
	}
	_, err = d.Resume(t.Context(), "web")
	must(t, err)

	_, err = d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	s, err = d.Stats(t.Context(), "web")
	must(t, err)
	if s.Guest != nil || s.Error != "it does not run" || s.State != vm.StateStopped || s.Host.PID != 0 || s.Host.Resident != 0 || s.Host.SystemDisk <= 0 {
		t.Errorf("stopped: %+v", s)
	}
	if _, err := d.GuestProcesses(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning {
		t.Errorf("processes of a VM that is stopped: %v", err)
	}
	if _, err := d.Stats(t.Context(), "nobody"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of no VM: %v", err)
	}
}
