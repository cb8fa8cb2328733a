package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"banger/internal/host/link"
	"banger/internal/host/nft"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Kinds implements inventory.Source.
func (d *Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{taps{d, p}, shared{d, p}}
}

// taps are the tap devices. A tap's alias says that it is banger's and names its VM; the bridge it is a port of says whose.
type taps struct {
	d *Driver
	p inventory.Place
}

func (taps) Rank() inventory.Rank { return inventory.Networks }

func (k taps) List(context.Context) ([]inventory.Object, error) {
	ports, err := link.Taps(tapAlias(""))
	var out []inventory.Object
	for _, t := range ports {
		id, err := vm.ParseID(strings.TrimPrefix(t.Alias, tapAlias("")))
		if err != nil || t.Name != tapName(id) {
			continue
		}
		o := inventory.Object{Kind: "tap device", Name: t.Name, VM: id, Run: true}
		switch trace := k.p.Trace(id); {
		case t.Bridge == k.d.Config.Name:
			o.Proof = "it is a port of " + t.Bridge + ", the bridge of " + k.p.Root
		case t.Bridge != "":
			o.Doubt = "it is a port of " + t.Bridge + ", which is not the bridge of " + k.p.Root
		case trace != "":
			o.Proof = trace
		default:
			o.Doubt = "it is a port of no bridge, and " + k.p.Elsewhere()
		}
		out = append(out, o)
	}
	return out, err
}

func (k taps) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	return k.d.Remove(ctx, o.VM)
}

// shared is what all VMs of the network use: the bridge, and its packet rules. Both are named after the root.
type shared struct {
	d *Driver
	p inventory.Place
}

func (shared) Rank() inventory.Rank { return inventory.Shared }

const (
	kindBridge = "bridge"
	kindRules  = "packet rules"
)

func (k shared) List(ctx context.Context) ([]inventory.Object, error) {
	if err := k.d.take(ctx); err != nil {
		return nil, err
	}
	defer k.d.give()
	var out []inventory.Object
	bridges, err := link.Bridges()
	for _, name := range bridges {
		if isBridge(name) {
			out = append(out, k.object(kindBridge, name))
		}
	}
	tables, terr := nft.Tables()
	if errors.Is(terr, nft.ErrMissing) || errors.Is(terr, nft.ErrDenied) {
		return out, err
	}
	err = errors.Join(err, terr)
	for _, name := range tables {
		if !isBridge(name) {
			continue
		}
		ours, oerr := nft.Ours(name)
		err = errors.Join(err, oerr)
		if ours {
			out = append(out, k.object(kindRules, name))
		}
	}
	return out, err
}

func (k shared) object(kind, name string) inventory.Object {
	o := inventory.Object{Kind: kind, Name: name}
	if name != k.d.Config.Name {
		o.Doubt = "another BANGER_ROOT's has that name"
		return o
	}
	o.Proof = "it has the name that " + k.p.Root + " gives it"
	o.Users = slices.Sorted(maps.Keys(k.d.ports))
	if k.d.ports == nil {
		o.Busy = "it is not known yet which VMs need it"
	}
	return o
}

// Remove removes bridge and rules together: either is of no use alone, and what they changed of the host is kept with the
// rules.
func (k shared) Remove(ctx context.Context, o inventory.Object) error {
	if err := k.d.take(ctx); err != nil {
		return err
	}
	defer k.d.give()
	if o.Name != k.d.Config.Name || k.d.ports == nil || len(k.d.ports) > 0 {
		return fmt.Errorf("remove %s %s: %w", o.Kind, o.Name, inventory.ErrChanged)
	}
	return k.d.tearDown(ctx)
}
