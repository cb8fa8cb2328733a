package engine

import (
	"context"
	"sync"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// A guest may die under a VMM that lives: it halts, or its kernel panics or hangs. Nothing tells of that, and nobody watches a
// guest that nobody needs. So who wants to know how a VM is has its guest asked, and is told since when it has not answered.
// It is what was seen, never a state: a guest that is short of memory may be silent for minutes, and go on.
const (
	silentAfter = 10 * time.Second // for who does not wait for the answer; a guest that is emulated on a busy host is slow
	inquiryWait = time.Minute      // for an answer that is late
)

// inquiry is what a guest was asked for the sake of who looks at its VM.
type inquiry struct {
	mu     sync.Mutex
	since  time.Time     // the first question that nothing came after; zero: there is none
	heard  int64         // how often something had come until then
	open   chan struct{} // closed when the newest question is answered, or in vain; nil: none is open
	opened time.Time     // when it was asked
}

// inquire has a guest asked, unless it just was, and returns what is closed when an answer may be there. A question may get
// lost with its connection: after a while it is asked once more.
func (a *agent) inquire() <-chan struct{} {
	q, now := &a.inquiry, time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	heard := a.heard.Load()
	stale := heard != q.heard || now.Sub(q.opened) > silentAfter
	if q.since.IsZero() || heard != q.heard {
		q.since, q.heard = now, heard
	}
	if q.open != nil && !stale {
		return q.open
	}
	open := make(chan struct{})
	q.open, q.opened = open, now
	go func() {
		ctx, cancel := context.WithTimeout(a.ctx, inquiryWait)
		defer cancel()
		_, err := a.client.Hello(ctx)
		q.mu.Lock()
		defer q.mu.Unlock()
		if err == nil || guest.Answered(err) {
			q.since = time.Time{}
		}
		if q.open == open {
			q.open = nil
		}
		close(open)
	}()
	return open
}

// silent is since when a guest owes an answer; zero: it does not.
func (a *agent) silent() time.Time {
	q := &a.inquiry
	q.mu.Lock()
	defer q.mu.Unlock()
	if a.heard.Load() != q.heard {
		return time.Time{}
	}
	return q.since
}

// forgive has it owe nothing: it could not answer.
func (a *agent) forgive() {
	q := &a.inquiry
	q.mu.Lock()
	defer q.mu.Unlock()
	q.since = time.Time{}
}

// Silent has a VM's guest asked for a sign of life, and waits so long for it. It returns since when the guest owes one; zero
// where it does not, or not for long enough, or where none can be had of it: it does not run, is paused, or is still being reached.
func (e *Engine) Silent(ctx context.Context, r vm.VMRecord, wait time.Duration) time.Time {
	w := e.known(r.ID)
	if w == nil || !e.vmAlive(r) {
		return time.Time{}
	}
	a := w.reached()
	if a == nil {
		return time.Time{}
	}
	if w.isPaused() {
		a.forgive()
		return time.Time{}
	}
	answered := a.inquire()
	enough := silentAfter
	if wait > 0 {
		enough = wait
		late := time.NewTimer(wait)
		defer late.Stop()
		select {
		case <-answered:
		case <-late.C:
		case <-ctx.Done():
		}
	}
	if since := a.silent(); !since.IsZero() && time.Since(since) >= enough && e.vmAlive(r) && !w.isPaused() {
		return since
	}
	return time.Time{}
}
