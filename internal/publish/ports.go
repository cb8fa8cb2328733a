package publish

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/vm"
)

// What one VM's ports carry at most at a time. Firecracker has room for 1,023 connections over its vsock, which exec and ssh need
// as well; and one VM must not use up the daemon's descriptors.
const (
	maxConnections = 512     // of TCP; who comes then waits in the kernel's queue
	maxWaiting     = 4 << 20 // bytes of datagrams that wait for the guest; what comes then is dropped
	maxClients     = 256     // of UDP; one that comes then takes the place of the one that was silent longest
)

// ports are those of one VM.
type ports struct {
	p     *Publisher
	id    vm.ID
	name  string        // guarded by the Publisher's lock
	slots chan struct{} // one for each connection
	seats seats         // one for each client of UDP

	waiting atomic.Int64 // bytes of datagrams

	mu      sync.Mutex
	entries map[vm.Port]*entry
	guest   Guest         // nil while it cannot be reached
	reached chan struct{} // closed while guest is not nil
}

// entry is one port, whether it could be had or not.
type entry struct {
	port  vm.Port
	owned *owned // nil: it could not be had
	held  int    // reservations whose intent is not told yet
	since uint64 // when the last of them was, by the Publisher's clock

	open   context.Context // ends when the port is given back
	shut   context.CancelFunc
	ctx    context.Context // of what it carries, which may last longer
	cancel context.CancelFunc

	why     string // it could not be had
	tries   int
	retryAt time.Time

	live func() int // what it carries just now
}

// of returns a VM's ports, made where there are none.
func (p *Publisher) of(id vm.ID, name string) *ports {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.vms[id]
	if v == nil {
		v = &ports{p: p, id: id, slots: make(chan struct{}, maxConnections), entries: map[vm.Port]*entry{}, reached: make(chan struct{})}
		p.vms[id] = v
	}
	if name != "" {
		v.name = name
	}
	return v
}

func (p *Publisher) known(id vm.ID) *ports {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.vms[id]
}

func (v *ports) newEntry(port vm.Port) *entry {
	e := &entry{port: port, live: func() int { return 0 }}
	e.ctx, e.cancel = context.WithCancel(v.p.ctx)
	e.open, e.shut = context.WithCancel(e.ctx)
	return e
}

// Mark is the moment at which a record is about to be read.
func (p *Publisher) Mark() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	return p.clock
}

// Apply brings a VM's ports to what its record, read after mark, wants: none while it is not to run. What a port that it does
// not publish any more carries is broken off; what one carries that is only closed with its VM ends with that. g is the guest,
// nil while it cannot be reached: who connects waits for it. again is when a port that could not be had is tried next, 0 = never.
func (p *Publisher) Apply(ctx context.Context, id vm.ID, name string, mark uint64, spec []vm.Port, run bool, g Guest) (again time.Duration) {
	if p.known(id) == nil && (!run || len(spec) == 0) {
		return 0
	}
	v := p.of(id, name)
	v.mu.Lock()
	v.reach(g)
	var gone, closed []*entry
	for port, e := range v.entries {
		published := slices.Contains(spec, port)
		if run && published || e.held > 0 || e.since > mark {
			continue
		}
		delete(v.entries, port)
		if published {
			closed = append(closed, e)
		} else {
			gone = append(gone, e)
		}
	}
	var missing []*entry
	now := time.Now()
	for _, port := range spec {
		e := v.entries[port]
		if !run || e != nil && (e.owned != nil || e.retryAt.After(now)) {
			continue
		}
		if e == nil {
			e = v.newEntry(port)
			v.entries[port] = e
		}
		missing = append(missing, e)
	}
	v.mu.Unlock()
	v.drop(gone, true)
	v.drop(closed, false)
	for _, e := range missing {
		if ctx.Err() == nil {
			v.try(ctx, e)
		}
	}
	return v.next()
}

// try listens for a port that is not ours yet.
func (v *ports) try(ctx context.Context, e *entry) {
	o, err := v.p.take(ctx, v.nameNow(), e.port)
	if err != nil && ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	was, there := e.why, v.entries[e.port] == e && e.owned == nil
	switch {
	case !there:
	case err != nil:
		e.why = err.Error()
		e.tries++
		e.retryAt = time.Now().Add(retryAfter(e.tries))
	default:
		v.serve(e, o)
	}
	why := e.why
	v.mu.Unlock()
	if !there && o != nil {
		v.p.give(o)
	}
	if there && why != was && v.p.Changed != nil {
		v.p.Changed(v.id, v.nameNow(), e.port, why)
	}
}

// serve has an entry carry what comes to a socket. It needs the lock.
func (v *ports) serve(e *entry, o *owned) {
	v.p.mu.Lock()
	o.of = v
	v.p.mu.Unlock()
	e.owned, e.why, e.tries, e.retryAt = o, "", 0, time.Time{}
	var carry func()
	if o.Stream != nil {
		l := &streams{v: v, e: e, listener: o.Stream}
		e.live, carry = l.count, l.run
	} else {
		f := newFlows(v, e, o.Packets)
		e.live, carry = f.count, f.run
	}
	v.p.wg.Go(func() {
		defer e.cancel()
		carry()
	})
}

// drop gives the ports of entries back that are in the list no more; cut breaks off what they carry.
func (v *ports) drop(entries []*entry, cut bool) {
	for _, e := range entries {
		e.shut()
		if cut || e.owned == nil {
			e.cancel()
		}
		if e.owned != nil {
			v.p.give(e.owned)
		}
	}
}

// next is when the first of the ports that could not be had is tried again.
func (v *ports) next() (again time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.entries {
		if e.owned == nil {
			if left := max(time.Until(e.retryAt), time.Millisecond); again == 0 || left < again {
				again = left
			}
		}
	}
	return again
}

// reach says how the guest is reached from now on. It needs the lock.
func (v *ports) reach(g Guest) {
	switch {
	case v.guest == nil && g != nil:
		close(v.reached)
	case v.guest != nil && g == nil:
		v.reached = make(chan struct{})
	}
	v.guest = g
}

// await returns the guest, once it can be reached.
func (v *ports) await(ctx context.Context) (Guest, error) {
	for {
		v.mu.Lock()
		g, reached := v.guest, v.reached
		v.mu.Unlock()
		if g != nil {
			return g, nil
		}
		select {
		case <-reached:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (v *ports) nameNow() string {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	return v.name
}

func (v *ports) close() {
	v.mu.Lock()
	var all []*entry
	for _, e := range v.entries {
		all = append(all, e)
	}
	v.entries = map[vm.Port]*entry{}
	v.mu.Unlock()
	v.drop(all, true)
}

// Retain gives back what a VM has that is not among the ports of its record, read after mark, and is not held; what that
// carries is broken off. What was given to it after mark stays: that record may not have known of it.
func (p *Publisher) Retain(id vm.ID, mark uint64, ports []vm.Port) {
	v := p.known(id)
	if v == nil {
		return
	}
	var gone []*entry
	v.mu.Lock()
	for port, e := range v.entries {
		if e.held == 0 && e.since <= mark && !slices.Contains(ports, port) {
			delete(v.entries, port)
			gone = append(gone, e)
		}
	}
	v.mu.Unlock()
	v.drop(gone, true)
}

// Forget gives back what a VM has, which is gone.
func (p *Publisher) Forget(id vm.ID) {
	v := p.known(id)
	if v == nil {
		return
	}
	v.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.vms, id)
}
