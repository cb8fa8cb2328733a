package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"banger/internal/vm"
)

// bus hands events to subscribers. A subscriber that does not keep up is cut off rather than waited for.
type bus struct {
	mu   sync.Mutex
	subs map[*subscription]bool
	open map[vm.ID][]vm.Event // stages that have begun and not ended, for who subscribes in the middle
	done bool
}

type subscription struct {
	id vm.ID // empty = all
	ch chan vm.Event
}

const subscriptionBuffer = 256

func newBus() *bus {
	return &bus{subs: map[*subscription]bool{}, open: map[vm.ID][]vm.Event{}}
}

func (b *bus) publish(ev vm.Event) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.track(ev)
	for s := range b.subs {
		if s.id != "" && s.id != ev.VM {
			continue
		}
		select {
		case s.ch <- ev:
		default:
			b.drop(s)
		}
	}
}

// track keeps open up to date; b.mu is held.
func (b *bus) track(ev vm.Event) {
	if ev.Kind != "stage" || ev.VM == "" {
		return
	}
	left := slices.DeleteFunc(b.open[ev.VM], func(o vm.Event) bool { return o.Stage == ev.Stage })
	if ev.Status == "begin" {
		left = append(left, ev)
	}
	if len(left) == 0 {
		delete(b.open, ev.VM)
	} else {
		b.open[ev.VM] = left
	}
}

// subscribe returns events of one VM (all for "") from now on, and before them the begin of each stage that is under
// way. The channel closes when the subscriber is too slow, the subscription was ended, or the bus closes.
func (b *bus) subscribe(id vm.ID) *subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	var open []vm.Event
	for of, events := range b.open {
		if id == "" || of == id {
			open = append(open, events...)
		}
	}
	s := &subscription{id: id, ch: make(chan vm.Event, subscriptionBuffer+len(open))}
	if b.done {
		close(s.ch)
		return s
	}
	b.subs[s] = true
	for _, ev := range open {
		s.ch <- ev
	}
	return s
}

// narrow lets only events of one VM come from now on.
func (b *bus) narrow(s *subscription, id vm.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.id = id
}

// end ends a subscription. One that has ended already stays so.
func (b *bus) end(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(s)
}

// drop ends a subscription; b.mu is held.
func (b *bus) drop(s *subscription) {
	if b.subs[s] {
		delete(b.subs, s)
		close(s.ch)
	}
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = true
	for s := range b.subs {
		b.drop(s)
	}
}

// Events returns what happens from now on, to one VM or (empty ref) to all. The channel closes when ctx ends, the
// engine closes, or the reader does not keep up.
func (e *Engine) Events(ctx context.Context, ref string) (<-chan vm.Event, error) {
	var id vm.ID
	if ref != "" {
		r, err := e.Store.VMByRef(ctx, ref)
		if err != nil {
			return nil, err
		}
		id = r.ID
	}
	if e.ctx.Err() != nil {
		return nil, errStopping
	}
	s := e.events.subscribe(id)
	context.AfterFunc(ctx, func() { e.events.end(s) })
	return s.ch, nil
}

// stateEvent tells subscribers what was just committed, and the log: events are not kept.
func (e *Engine) stateEvent(r vm.VMRecord) {
	about := []any{"vm", r.Name, "id", r.ID, "want", r.Want, "state", r.Runtime.State}
	if r.Runtime.LastError != "" {
		about = append(about, "error", r.Runtime.LastError)
	}
	e.Log.Info("recorded", about...)
	e.events.publish(vm.Event{VM: r.ID, Name: r.Name, Kind: "state", State: r.Runtime.State, Text: r.Runtime.LastError})
}

// goneEvent tells subscribers that the row is gone. The name may be empty: nobody has read the row since the daemon's start.
func (e *Engine) goneEvent(id vm.ID, name string) {
	e.Log.Info("gone", "vm", name, "id", id)
	e.events.publish(vm.Event{VM: id, Name: name, Kind: "gone"})
}
