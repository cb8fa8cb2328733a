package cli

import (
	"context"
	"time"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// unasked is how long an answer is waited for before events are asked for: a VM that runs answers sooner, and a request
// less is made. It leaves time to hear of a stage before patience ends.
const unasked = 300 * time.Millisecond

// follow shows how a VM comes to where it can answer, until the returned function is called.
func (p *progress) follow(ctx context.Context, c *client.Client, ref string) (arrived func(ok bool)) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	p.waiting("waiting for " + clean(ref))
	wait := unasked
	if p.all {
		wait = 0
	}
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			_ = c.Events(ctx, ref, p.event) // what it misses is only not shown
		}
	}()
	return func(ok bool) {
		stop()
		<-ended // an event that comes later would begin a stage that nothing ends
		p.settle(ok)
	}
}

// copying begins the stage of a copy; what is written to p.moved counts.
func (p *progress) copying() { p.event(vm.Event{Kind: "stage", Stage: "copy", Status: "begin"}) }
