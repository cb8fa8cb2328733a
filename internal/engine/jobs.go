package engine

import (
	"context"
	"time"

	"banger/internal/guest"
)

// jobsWait is how long a guest is given to answer about its jobs.
const jobsWait = 20 * time.Second

// GuestJobs lists the jobs of a VM's guest. A VM that is being started is waited for.
func (e *Engine) GuestJobs(ctx context.Context, ref string) (guest.Jobs, error) {
	c, err := e.Agent(ctx, ref)
	if err != nil {
		return guest.Jobs{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, jobsWait)
	defer cancel()
	return c.Jobs(ctx)
}

// SignalJob sends a job of a VM's guest a signal.
func (e *Engine) SignalJob(ctx context.Context, ref string, r guest.SignalRequest) error {
	c, err := e.Agent(ctx, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, jobsWait)
	defer cancel()
	return c.SignalJob(ctx, r)
}
