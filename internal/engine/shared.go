package engine

import (
	"context"
	"fmt"

	"banger/internal/network"
	"banger/internal/vm"
)

// applyNetwork brings what the VMs of a network share to what those need that run or are about to, but for the one that
// is being taken down. Callers take turns: each sees what the one before it left.
func (e *Engine) applyNetwork(ctx context.Context, net network.Driver, except vm.ID) error {
	applier, ok := net.(network.Applier)
	if !ok {
		return nil
	}
	select {
	case e.applying <- struct{}{}:
		defer func() { <-e.applying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	records, err := e.Store.SharedVMs(ctx)
	if err != nil {
		return err
	}
	var ports []network.Port
	for _, r := range records {
		if r.Network == net.Name() && r.ID != except && (r.Want == vm.WantRunning || e.Handles.Get(r.ID).TapDevice != "") {
			ports = append(ports, portOf(r))
		}
	}
	if err := applier.Apply(ctx, ports); err != nil {
		return fmt.Errorf("set up network %s: %w", net.Name(), err)
	}
	return nil
}

// settleNetwork applies once more when the record says that a VM's run is over: two that end at once each still saw the
// other as one that needs what they share. Where that fails, those that still run have it tried again.
func (e *Engine) settleNetwork(ctx context.Context, r vm.VMRecord) {
	net, err := e.network(r.Network)
	if err == nil {
		err = e.applyNetwork(ctx, net, "")
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	e.Log.Warn("what VMs share of a network is not whole, or left", "network", r.Network, "error", err)
	records, err := e.Store.SharedVMs(ctx)
	if err != nil {
		return // who acts on it tells
	}
	for _, other := range records {
		if w := e.known(other.ID); w != nil && other.Network == r.Network {
			w.networkMayBeBroken()
		}
	}
}
