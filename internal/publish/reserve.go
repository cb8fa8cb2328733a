package publish

import (
	"context"
	"slices"

	"banger/internal/vm"
)

// Reservation is ports of the host that are ours before a record says for whom.
type Reservation struct {
	p     *Publisher
	ports []vm.Port // in the order they were asked for, with numbers
	owned []*owned
	had   []*entry // that the VM had already
	of    *ports   // theirs
}

// Reserve takes ports of the host for a VM, all or none. Those that the VM has already are kept for it until Close, as by Hold:
// id may be empty for one that is still to be made. avoid says which numbers the system must not choose.
func (p *Publisher) Reserve(ctx context.Context, id vm.ID, name string, ports []vm.Port, avoid func(vm.Port) bool) (*Reservation, error) {
	r := &Reservation{p: p, of: p.known(id)}
	for _, port := range ports {
		if e := r.of.keep(port); e != nil {
			r.ports, r.had = append(r.ports, port), append(r.had, e)
			continue
		}
		o, err := p.choose(ctx, name, port, avoid)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.ports, r.owned = append(r.ports, o.port), append(r.owned, o)
	}
	return r, nil
}

// choices bounds how often the system is asked for another number.
const choices = 64

func (p *Publisher) choose(ctx context.Context, name string, port vm.Port, avoid func(vm.Port) bool) (*owned, error) {
	var avoided []*owned // held while others are tried, so that the same ones do not come again
	defer func() {
		for _, o := range avoided {
			p.give(o)
		}
	}()
	for {
		o, err := p.take(ctx, name, port)
		if err != nil || port.HostPort != 0 || avoid == nil || !avoid(o.port) || len(avoided) == choices {
			return o, err
		}
		avoided = append(avoided, o)
	}
}

// Ports are those asked for, with the numbers that the system chose.
func (r *Reservation) Ports() []vm.Port { return r.ports }

// Close gives back what no VM has got. An Apply that came before it has left alone what the VM had: let another follow.
func (r *Reservation) Close() {
	for _, o := range r.owned {
		r.p.give(o)
	}
	if len(r.had) > 0 {
		r.of.loose(r.had, true)
	}
	r.owned, r.had = nil, nil
}

// Hold gives what was reserved to a VM. Until release is called no Apply takes it away; then one does whose record was read
// later and does not name it. kept false: it is given back, since the VM did not get it, unless somebody else holds it.
func (p *Publisher) Hold(id vm.ID, name string, r *Reservation) (release func(kept bool)) {
	v := p.of(id, name)
	var held []*entry
	v.mu.Lock()
	for _, o := range r.owned {
		e := v.entries[o.port]
		if e != nil && e.owned != nil { // somebody was quicker, for this same VM: not with the same socket
			continue
		}
		if e == nil {
			e = v.newEntry(o.port)
			v.entries[o.port] = e
		}
		v.serve(e, o)
		e.held++
		held = append(held, e)
	}
	v.mu.Unlock()
	r.owned = slices.DeleteFunc(r.owned, func(o *owned) bool { return slices.ContainsFunc(held, func(e *entry) bool { return e.owned == o }) })
	return func(kept bool) { v.drop(v.loose(held, kept), true) }
}

// keep holds a port that the VM has, and that is open; nil where it is not.
func (v *ports) keep(port vm.Port) *entry {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[port]
	if e == nil || e.owned == nil {
		return nil
	}
	e.held++
	return e
}

// loose ends a hold of each of these, and returns those that are the VM's no more: it did not get them, and nobody else
// holds them.
func (v *ports) loose(held []*entry, kept bool) (lost []*entry) {
	now := v.p.Mark()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range held {
		if e.held--; e.since < now {
			e.since = now
		}
		if !kept && e.held == 0 && v.entries[e.port] == e {
			delete(v.entries, e.port)
			lost = append(lost, e)
		}
	}
	return lost
}
