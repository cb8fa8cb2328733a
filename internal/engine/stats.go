package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/host/file"
	"banger/internal/vm"
)

// statsWait is how long a guest is asked for its load: whoever asks for many VMs must not wait for the one that hangs.
const statsWait = 2 * time.Second

// processesWait is how long a guest is given to list its processes: one that is busy with very many takes its time.
const processesWait = 20 * time.Second

// GuestProcesses lists the processes of a VM's guest. A VM that is being started is waited for.
func (e *Engine) GuestProcesses(ctx context.Context, ref string) (guest.Processes, error) {
	c, err := e.Agent(ctx, ref)
	if err != nil {
		return guest.Processes{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, processesWait)
	defer cancel()
	return c.Processes(ctx)
}

// Stats is a VM's load. It fails only where there is no such VM: what cannot be told of it is left out, and Error says why.
func (e *Engine) Stats(ctx context.Context, ref string) (api.VMStats, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return api.VMStats{}, err
	}
	r.Runtime = e.complete(r)
	r = e.Seen(r)
	s := api.VMStats{ID: r.ID, Name: r.Name, State: r.Runtime.State, VCPU: r.Spec.VCPU, At: time.Now()}
	s.Host.SystemDisk, _ = file.Allocated(r.Runtime.SystemOverlay) // absent until the first start
	s.Host.WorkDisk, _ = file.Allocated(r.Runtime.WorkDiskPath)
	if !e.vmAlive(r) {
		s.Error = "it does not run"
		return s, nil
	}
	id := e.Handles.Process(r.ID)
	if u, err := e.Processes.Usage(id); err == nil {
		s.Host.PID, s.Host.CPUMs, s.Host.Resident = id.PID, u.CPU.Milliseconds(), u.Resident
	}
	if r.Runtime.State == vm.StatePaused {
		s.Error = "it is paused"
		return s, nil
	}
	var c *guest.Client
	if w := e.known(r.ID); w != nil {
		c = w.client()
	}
	if c == nil {
		s.Error = "its agent does not answer yet"
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	g, err := c.Stats(ctx)
	switch {
	case err == nil:
		s.Guest = &g
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.Error = fmt.Sprintf("its agent did not answer within %v", statsWait)
	default:
		s.Error = err.Error()
	}
	return s, nil
}
