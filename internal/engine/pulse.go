package engine

import (
	"context"
	"fmt"
	"time"

	"banger/internal/guest"
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

// mostMissed is how many questions in a row a guest may leave unanswered, and send nothing else, whose machine runs.
const mostMissed = 3

// pulse counts the answers that a guest owes.
type pulse struct{ missed int }

// lost takes what became of one question, and says whether the guest has died under a VMM that lives. lives: it was answered,
// or something else came. halted: nobody could have
// answered, since the machine does not run for now, or its VMM does not tell. last: the last that its kernel said is that it
// powers off, or halts.
func (p *pulse) lost(lives, halted, last bool) bool {
	if lives || halted {
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
	watched := e.background(func(stopping context.Context) {
		defer context.AfterFunc(stopping, func() { cancel(nil) })()
		r, err := e.Store.VMByRef(ctx, ref) // here: who comes with a command need not wait for it
		if err != nil {                     // whoever asks has just had it: it has gone, and its streams end with it
			return
		}
		r.Runtime = e.complete(r)
		if why := e.watchPulse(ctx, r); why != nil {
			e.Log.Warn("the guest is taken for dead: who follows its commands and copies is told", "vm", r.Name, "id", r.ID, "error", why)
			cancel(why)
		}
	})
	if !watched {
		cancel(errStopping)
	}
	return ctx, func() { cancel(nil) }
}

// watchPulse returns when the guest is lost, and why; nil when ctx has ended. A guest that is short of memory may leave a hello
// unanswered for minutes: whatever comes from it meanwhile, an old answer too, is a sign of life.
func (e *Engine) watchPulse(ctx context.Context, r vm.VMRecord) error {
	tick := time.NewTicker(e.pulseTimes.every)
	defer tick.Stop()
	var of *agent
	heard := int64(0) // of it, until the last look
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
		a := w.reached()
		if a == nil {
			continue // its session is made anew, or its machine has ended, which the stream tells
		}
		if a != of {
			of, heard = a, a.heard.Load()
		}
		err := e.pulseTimes.question(ctx, a.client)
		if ctx.Err() != nil {
			return nil
		}
		before := heard
		heard = a.heard.Load()
		lives := err == nil || guest.Answered(err) || heard != before
		if p.lost(lives, !lives && !e.turns(ctx, r), !lives && endedInOrder(r)) {
			return fmt.Errorf("its machine runs, and nothing comes from its guest, which was asked %d times: %w", p.missed, err)
		}
	}
}

// question asks a guest for a hello, and waits some time for it. Beyond that the question stays open for as long as its answer
// can matter.
func (t pulseTimes) question(ctx context.Context, c *guest.Client) error {
	answer := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, mostMissed*(t.every+t.answer))
		defer cancel()
		_, err := c.Hello(ctx)
		answer <- err
	}()
	late := time.NewTimer(t.answer)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
		return fmt.Errorf("it did not answer within %v", t.answer)
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
