package engine

import (
	"context"
	"errors"
	"time"

	"banger/internal/vm"
)

// renameWait bounds how long who renames a VM waits for its guest to hear of it.
const renameWait = 10 * time.Second

// Rename gives a VM another name. All that is made for a VM follows from its id, so that nothing on the host changes with it
// but what carries the name for others: DNS, and the pinned host key. told says that a guest that runs knows its new name;
// one that does not is told when it is reached next.
func (e *Engine) Rename(ctx context.Context, ref, name string) (r vm.VMRecord, told bool, err error) {
	if err := vm.ValidateName(name); err != nil {
		return r, false, err
	}
	r, err = e.Store.VMByRef(ctx, ref)
	if err != nil {
		return r, false, err
	}
	watch := e.Watch()
	defer watch.Stop()
	r, err = e.Store.Change(ctx, r.ID, func(r *vm.VMRecord) error {
		r.Name, r.Runtime.DNSName = name, dnsName(name)
		return nil
	})
	if err != nil {
		return r, false, err
	}
	e.stateEvent(r)
	w := e.known(r.ID)
	if w == nil {
		return r, false, nil
	}
	w.poke()
	bounded, cancel := context.WithTimeout(ctx, renameWait)
	defer cancel()
	now, err := watch.until(bounded, r.ID, nil, func(r vm.VMRecord) (bool, error) {
		told = w.goesBy(r.Name)
		return told || w.isPaused() || r.Want != vm.WantRunning, nil
	})
	switch {
	case isNotFound(err), err != nil && ctx.Err() == nil && errors.Is(bounded.Err(), context.DeadlineExceeded):
		return r, false, nil
	case err != nil:
		return r, false, err
	}
	return now, told, nil
}

// goesBy says whether the guest is reached and was told this name.
func (w *worker) goesBy(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready && w.named == name
}

// tell configures the guest once more: it has another name by now, or its clock stood still, or its network is to be tried
// again. The resolver and the ssh client learn the name with it.
func (w *worker) tell(ctx context.Context, r vm.VMRecord) error {
	w.mu.Lock()
	a := w.agent
	w.mu.Unlock()
	if a == nil {
		return nil // reaching it tells it
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	net, err := w.attach(ctx, r) // the resolver goes by names
	if err := w.networkFault(ctx, r, err); err != nil {
		return err
	}
	c, err := w.e.identity(ctx, r)
	if err != nil {
		return err
	}
	c.Network = net.Guest
	if err := w.configure(ctx, r, a, c); err != nil {
		return err
	}
	w.e.stateEvent(r) // for who waits for it
	return nil
}
