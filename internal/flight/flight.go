// Package flight lets callers who want the same thing share one making of it. It knows nothing of what is made.
package flight

import (
	"context"
	"slices"
	"sync"

	"banger/internal/vm"
)

// Group is the makings that are under way, by key. Unlike golang.org/x/sync/singleflight it minds contexts: a caller that
// goes away leaves the others their flight, and the work is cancelled when the last has gone. Zero is an empty one.
type Group[T any] struct {
	mu      sync.Mutex
	m       map[string]*flight[T]
	closed  bool
	running sync.WaitGroup // the cancelled ones that still clean up included
}

type flight[T any] struct {
	cancel  context.CancelFunc
	done    chan struct{} // closed when value and err are final
	value   T
	err     error
	waiters []*waiter
	events  []vm.Event // so far: a late joiner is shown how far things are
}

// errClosed is for who comes while the daemon goes.
var errClosed = vm.Errorf(vm.CodeCanceled, "the daemon is stopping")

type waiter struct{ report vm.Report }

// Do returns the result of work for key, joining a flight that is under way. Events go to every caller's report, and
// to none after its caller has returned.
func (g *Group[T]) Do(ctx context.Context, key string, report vm.Report, work func(context.Context, vm.Report) (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	w := &waiter{report}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return none, errClosed
	}
	f := g.m[key]
	if f == nil {
		f = &flight[T]{done: make(chan struct{})}
		var workCtx context.Context
		workCtx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		if g.m == nil {
			g.m = map[string]*flight[T]{}
		}
		g.m[key] = f
		g.running.Go(func() { g.fly(workCtx, key, f, work) })
	}
	for _, e := range f.events {
		report.Send(e)
	}
	f.waiters = append(f.waiters, w)
	g.mu.Unlock()

	defer g.leave(key, f, w)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (g *Group[T]) fly(ctx context.Context, key string, f *flight[T], work func(context.Context, vm.Report) (T, error)) {
	defer f.cancel()
	f.value, f.err = work(ctx, func(e vm.Event) {
		g.mu.Lock()
		defer g.mu.Unlock()
		f.events = append(f.events, e)
		for _, w := range f.waiters {
			w.report.Send(e)
		}
	})
	g.mu.Lock()
	if g.m[key] == f {
		delete(g.m, key)
	}
	g.mu.Unlock()
	close(f.done)
}

func (g *Group[T]) leave(key string, f *flight[T], w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(o *waiter) bool { return o == w })
	if len(f.waiters) > 0 {
		return
	}
	f.cancel()
	if g.m[key] == f {
		delete(g.m, key) // a newcomer must not join what is being cancelled
	}
}

// Close cancels all flights, lets no new one begin, and returns when the last has cleaned up.
func (g *Group[T]) Close() {
	g.mu.Lock()
	g.closed = true
	for _, f := range g.m {
		f.cancel()
	}
	g.mu.Unlock()
	g.running.Wait()
}
