package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
)

// pulseTimes are how a guest is watched that somebody follows a command in.
type pulseTimes struct {
	every  time.Duration // between two questions
	answer time.Duration // for one answer; a guest that is emulated on a busy host is slow
	vmm    time.Duration // for the VMM's
}

var defaultPulseTimes = pulseTimes{every: 20 * time.Second, answer: 30 * time.Second, vmm: 5 * time.Second}

// mostMissed is how many answers in a row a guest may miss whose machine runs.
const mostMissed = 3

// pulse counts the answers that a guest owes.
type pulse struct{ missed int }

// lost takes what became of one question, and says whether the guest has died under a VMM that lives. halted: nobody could have
// answered, since the machine does not run for now, or its VMM does not tell. last: the last that its kernel said is that it
// powers off, or halts.
func (p *pulse) lost(answered, halted, last bool) bool {
	if answered || halted {
		p.missed = 0
		return false
	}
	p.missed++
	return last || p.missed >= mostMissed
}

// WhileAnswers is ctx for as long as a VM's guest answers, for who passes a stream to and from it: such a stream, over vsock,
// tells nothing of a guest that halted without an end of its VMM. A machine that is halted by its user, its VMM or its host
// may go on some day, and is waited for. Call stop when the stream is over.
func (e *Engine) WhileAnswers(ctx context.Context, ref string) (answers context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil { // whoever asks has just had it: it has gone, and its streams end with it
		return ctx, func() { cancel(nil) }
	}
	r.Runtime = e.complete(r)
	watched := e.background(func(stopping context.Context) {
		defer context.AfterFunc(stopping, func() { cancel(nil) })()
		if why := e.watchPulse(ctx, r); why != nil {
			e.Log.Warn("the guest is taken for dead: who follows its commands is told", "vm", r.Name, "id", r.ID, "error", why)
			cancel(why)
		}
	})
	if !watched {
		cancel(errStopping)
	}
	return ctx, func() { cancel(nil) }
}

// watchPulse returns when the guest is lost, and why; nil when ctx has ended.
func (e *Engine) watchPulse(ctx context.Context, r vm.VMRecord) error {
	tick := time.NewTicker(e.pulseTimes.every)
	defer tick.Stop()
	for p := (pulse{}); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w := e.known(r.ID)
		if w == nil {
			continue
		}
		c := w.client()
		if c == nil {
			continue // its session is made anew, or its machine has ended, which the stream tells
		}
		_, err := ask(ctx, c, e.pulseTimes.answer)
		if ctx.Err() != nil {
			return nil
		}
		if p.lost(err == nil, err != nil && !e.turns(ctx, r), err != nil && endedInOrder(r)) {
			return fmt.Errorf("its machine runs, and its guest does not answer: %w", err)
		}
	}
}

// turns says whether the VMM tells that its machine runs.
func (e *Engine) turns(ctx context.Context, r vm.VMRecord) bool {
	d, err := e.vmm(r.VMM)
	p, ok := d.(vmm.Pauser)
	if err != nil || !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, e.pulseTimes.vmm)
	defer cancel()
	runs, err := p.Runs(ctx, refOf(r))
	return err == nil && runs
}
