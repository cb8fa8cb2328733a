package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/plan"
	"banger/internal/publish"
	"banger/internal/vm"
)

// listenersWait is how long a guest is given to list who listens in it.
const listenersWait = 5 * time.Second

// publish has the VM's ports open while it is to run. It comes before the step: a port that can be had is there before the
// machine is, and closed before that ends. again is when one that could not be had is tried next.
func (w *worker) publish(ctx context.Context, step plan.Step, r vm.VMRecord, mark uint64) (again time.Duration) {
	run := r.Want == vm.WantRunning
	switch step {
	case plan.Wait, plan.CleanUp, plan.Forget, plan.Reset:
		run = false
	}
	w.mu.Lock()
	run = run || w.keepsPorts && r.Want == vm.WantStopped
	w.mu.Unlock()
	var g publish.Guest
	if c := w.client(); c != nil && !w.isPaused() { // not a nil client in an interface
		g = c
	}
	return w.e.published.Apply(ctx, r.ID, r.Name, mark, r.Spec.Ports, run, g)
}

// sooner is the earlier of two waits, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// keepPorts keeps the ports of a VM that is restarted, so that nobody takes them meanwhile and who connects waits. Call loose
// when it is to run again, or will not.
func (e *Engine) keepPorts(r vm.VMRecord) (loose func()) {
	w := e.known(r.ID)
	if w == nil {
		return func() {}
	}
	keep := func(keeps bool) {
		w.mu.Lock()
		w.keepsPorts = keeps
		w.mu.Unlock()
	}
	keep(true)
	return func() {
		keep(false)
		w.poke()
	}
}

// reserve takes ports of the host for a VM before anything is recorded, so that a taken one is refused. A number that the system
// is to choose is none that another VM's spec has: that VM could not start any more.
func (e *Engine) reserve(ctx context.Context, r vm.VMRecord, ports []vm.Port) (*publish.Reservation, error) {
	var avoid func(vm.Port) bool
	if slices.ContainsFunc(ports, func(p vm.Port) bool { return p.HostPort == 0 }) {
		records, err := e.Store.SharedVMs(ctx)
		if err != nil {
			return nil, err
		}
		avoid = func(p vm.Port) bool {
			return slices.ContainsFunc(ports, p.Overlaps) || slices.ContainsFunc(records, func(r vm.VMRecord) bool {
				return slices.ContainsFunc(r.Spec.Ports, p.Overlaps)
			})
		}
	}
	return e.published.Reserve(ctx, r.ID, r.Name, ports, avoid)
}

// unreserve ends a reservation, and has the VM's worker see to what it left alone meanwhile.
func (e *Engine) unreserve(r vm.VMRecord, ports *publish.Reservation) {
	ports.Close()
	if w := e.known(r.ID); w != nil {
		w.poke()
	}
}

// portChanged is told of ports that could not be had when their VM had to have them, or could at last.
func (e *Engine) portChanged(id vm.ID, name string, p vm.Port, why string) {
	text := fmt.Sprintf("port %s is published", p)
	if why != "" {
		text = why + "; it is tried again"
		e.Log.Warn("a port is not published", "vm", name, "id", id, "port", p, "error", why)
	}
	e.events.publish(vm.Event{VM: id, Name: name, Kind: "note", Text: text})
}

// ChangePorts publishes more ports of a VM, and others no longer: all of what is asked, or nothing. What a removed one carries is
// broken off. Those that are added have, in the record, the numbers that the system chose.
func (e *Engine) ChangePorts(ctx context.Context, ref string, req api.PortsRequest) (vm.VMRecord, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, err
	}
	if len(req.Add) == 0 && len(req.Remove) == 0 {
		return r, vm.Errorf(vm.CodeInvalid, "change the ports of VM %s: none was named", r.Name)
	}
	left, err := withoutPorts(r, req.Remove)
	if err != nil {
		return r, err
	}
	for _, p := range req.Add { // a number that is to be chosen has no other in its way
		if slices.Contains(left, p) {
			return r, vm.Errorf(vm.CodeExists, "VM %s publishes %s already", r.Name, p).WithHint("banger vm ports %s", r.Name)
		}
	}
	if err := vm.ValidatePorts(append(slices.Clone(left), req.Add...)); err != nil {
		return r, err
	}
	ports, err := e.reserve(ctx, r, req.Add)
	if err != nil {
		return r, err
	}
	defer e.unreserve(r, ports)
	release := e.published.Hold(r.ID, r.Name, ports) // it may be started, or stopped, until the change is recorded
	var mark uint64
	r, err = e.Store.Change(ctx, r.ID, func(r *vm.VMRecord) error {
		mark = e.published.Mark()
		if r.Want == vm.WantGone {
			return vm.Errorf(vm.CodeConflict, "VM %s is being removed", r.Name)
		}
		left, err := withoutPorts(*r, req.Remove)
		if err != nil {
			return err
		}
		r.Spec.Ports = append(slices.Clone(left), ports.Ports()...)
		return vm.ValidatePorts(r.Spec.Ports)
	})
	release(err == nil && r.Want == vm.WantRunning)
	if err != nil {
		return r, err
	}
	e.stateEvent(r)
	e.published.Retain(r.ID, mark, r.Spec.Ports)
	return r, nil
}

// withoutPorts are the ports of a VM but for those that words mean.
func withoutPorts(r vm.VMRecord, words []string) ([]vm.Port, error) {
	left := r.Spec.Ports
	for _, word := range words {
		found, err := vm.MatchPorts(r.Spec.Ports, word)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, vm.Errorf(vm.CodeNotFound, "VM %s publishes no port %s", r.Name, word).WithHint("banger vm ports %s shows what it publishes", r.Name)
		}
		left = slices.DeleteFunc(slices.Clone(left), func(p vm.Port) bool { return slices.Contains(found, p) })
	}
	return left, nil
}

// Published tells how a VM's published ports are.
func (e *Engine) Published(r vm.VMRecord) []api.PortStatus {
	var all []api.PortStatus
	for _, p := range r.Spec.Ports {
		s := api.PortStatus{Port: p, State: api.PortClosed}
		now, ok := e.published.Status(r.ID, p)
		switch {
		case ok && now.Open:
			s.State, s.Connections = api.PortOpen, now.Connections
		case ok && now.Why != "":
			s.State, s.Error, s.RetryAt = api.PortFailed, now.Why, now.RetryAt
		}
		all = append(all, s)
	}
	return all
}

// Ports tells what a VM publishes and what listens in its guest. It fails only where there is no such VM: what cannot be told
// is left out, and Error says why.
func (e *Engine) Ports(ctx context.Context, ref string) (api.VMPorts, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return api.VMPorts{}, err
	}
	all := api.VMPorts{Published: e.Published(r), Listeners: []guest.Listener{}}
	if all.Published == nil {
		all.Published = []api.PortStatus{}
	}
	bounded, cancel := context.WithTimeout(ctx, listenersWait)
	defer cancel()
	l, err := e.listeners(bounded, r)
	switch {
	case err == nil:
		all.Listeners = l.Listeners
	case errors.Is(bounded.Err(), context.DeadlineExceeded):
		all.Error = fmt.Sprintf("its agent did not answer within %v", listenersWait)
	case vm.HintOf(err) != "":
		all.Error = fmt.Sprintf("%v (%s)", err, vm.HintOf(err))
	default:
		all.Error = err.Error()
	}
	return all, nil
}

func (e *Engine) listeners(ctx context.Context, r vm.VMRecord) (guest.Listeners, error) {
	if !e.vmAlive(r) {
		return guest.Listeners{}, errors.New("it does not run")
	}
	c, err := e.Agent(ctx, string(r.ID)) // which may only just have been found by a new daemon
	if err != nil {
		return guest.Listeners{}, err
	}
	return c.Listeners(ctx)
}
