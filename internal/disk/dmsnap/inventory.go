package dmsnap

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/disk"
	"banger/internal/host/blockdev"
	"banger/internal/host/dm"
	"banger/internal/host/file"
	"banger/internal/host/loop"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Kinds implements inventory.Source.
func (d Driver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{devices{d, p}, loops{d, p}, disk.TrialFiles(d.trials, name, p)}
}

// devices are the device-mapper devices. Their uuid says that they are banger's, and the store they stand on whose.
type devices struct {
	d Driver
	p inventory.Place
}

func (devices) Rank() inventory.Rank { return inventory.Devices }

func (k devices) List(context.Context) (out []inventory.Object, err error) {
	busy, err := k.d.trials.Look(func() error {
		ours, err := dm.List()
		if err != nil {
			return err
		}
		all, err := loop.List()
		if err != nil && len(ours) > 0 {
			return err
		}
		for _, dev := range ours {
			out = append(out, k.object(dev, all))
		}
		return nil
	})
	for i := range out {
		if busy && out[i].VM == "" {
			out[i].Busy = disk.Trying
		}
	}
	return out, err
}

func (k devices) object(dev dm.Device, all []loop.Device) inventory.Object {
	o := inventory.Object{Kind: "device-mapper device", Name: dm.UUID(dev.ID), More: dm.Link(dev.ID), VM: dev.ID}
	store := storeOf(dev.Table, all)
	rest, below := inventory.Below(store, k.p.VMs)
	switch {
	case below && rest == filepath.Join(string(dev.ID), "system"):
		o.Run, o.Proof = true, "its store is "+store
	case below && strings.HasPrefix(rest, disk.ProbePrefix(name)): // of a probe, whose id is no VM's
		o.VM, o.Proof = "", "its store is "+store
	case store != "":
		o.Doubt = "its store is " + store + ", which is no VM's below " + k.p.Root
	case k.p.Trace(dev.ID) != "":
		o.Run, o.Proof = true, k.p.Trace(dev.ID)
	default:
		o.Doubt = "it stands on no file, and " + k.p.Elsewhere()
	}
	return o
}

// storeOf is the file of the second device in a snapshot's table, "0 65536 snapshot 7:0 7:1 PO 8"; empty when there is none.
func storeOf(table string, all []loop.Device) string {
	f := strings.Fields(table)
	if len(f) < 5 || f[2] != "snapshot" {
		return ""
	}
	for _, l := range all {
		if l.Number == f[4] {
			return l.Backing
		}
	}
	return ""
}

func (k devices) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	id, err := vm.ParseID(strings.TrimPrefix(o.Name, dm.UUID("")))
	if err != nil {
		return fmt.Errorf("remove %s: %w", o.Name, err)
	}
	return dm.Remove(ctx, id)
}

// loops are the loop devices, under the names of their files.
type loops struct {
	d Driver
	p inventory.Place
}

func (loops) Rank() inventory.Rank { return inventory.Loops }

// List holds the lock, so that an image's device on which nothing stands is not one that a device is about to stand on.
func (k loops) List(ctx context.Context) (out []inventory.Object, err error) {
	if err := k.d.lock(ctx); err != nil {
		return nil, err
	}
	defer k.d.unlock()
	return k.list()
}

func (k loops) list() (out []inventory.Object, err error) {
	var probes []int
	busy, err := k.d.trials.Look(func() error {
		all, err := loop.List()
		for _, l := range all {
			if !l.Ours {
				continue
			}
			o, probe := k.object(l)
			if probe {
				probes = append(probes, len(out))
			}
			out = append(out, o)
		}
		return err
	})
	for _, i := range probes {
		if busy {
			out[i].Busy = disk.Trying
		}
	}
	return out, err
}

func (k loops) object(l loop.Device) (o inventory.Object, probe bool) {
	o = inventory.Object{Kind: "loop device", Name: l.Backing, More: l.Path, Made: file.Born(l.Backing)}
	o.Proof = "it stands on " + l.Backing
	inVMs, vms := inventory.Below(l.Backing, k.p.VMs)
	_, images := inventory.Below(l.Backing, k.p.Images)
	_, state := inventory.Below(l.Backing, k.p.State)
	switch id, err := vm.ParseID(filepath.Dir(inVMs)); {
	case vms && err == nil:
		o.VM, o.Run = id, true
	case state && strings.HasPrefix(filepath.Base(l.Backing), disk.ProbePrefix(name)):
		return o, true
	case images:
		o.Users = standing(l.Number)
	default:
		o.Proof, o.Doubt = "", "its file is in no directory of "+k.p.Root+" that loop devices are made in"
	}
	return o, false
}

// standing are the VMs whose devices stand on this one.
func standing(number string) (ids []vm.ID) {
	for _, dev := range blockdev.Stacked(number) {
		if id, err := vm.ParseID(strings.TrimPrefix(dev, dm.Name(""))); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Remove leaves a device on which another stands, and says so.
func (k loops) Remove(ctx context.Context, o inventory.Object) error {
	if err := k.d.lock(ctx); err != nil {
		return err
	}
	defer k.d.unlock()
	now, err := k.list()
	i := slices.IndexFunc(now, func(n inventory.Object) bool { return n.Name == o.Name && n.VM == o.VM })
	switch {
	case i < 0:
		return err
	case now[i].Proof == "" || now[i].Busy != "":
		return fmt.Errorf("remove the loop device of %s: %w", o.Name, inventory.ErrChanged)
	}
	return loop.Remove(ctx, o.Name)
}
