package crashtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/disk"
	"banger/internal/host/cgroup"
	"banger/internal/host/ext4"
	"banger/internal/host/file"
	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// snapDisks are overlays of loop devices and device-mapper, in the order of disk/dmsnap.
type snapDisks struct {
	k      *machine
	shared chan struct{} // held while an image's loop device is looked for until a device stands on it
}

var (
	_ disk.Driver = snapDisks{}
	_ disk.Guard  = snapDisks{}
)

func newDisks(k *machine) snapDisks { return snapDisks{k, make(chan struct{}, 1)} }

func (snapDisks) Name() string      { return "dmsnap" }
func (snapDisks) Suits(string) bool { return true }

// Probe makes a file in each directory, as disk/reflink does.
func (d snapDisks) Probe(ctx context.Context, imageDir, vmDir string) error {
	for _, dir := range []string{imageDir, vmDir} {
		f, remove, err := file.Temp(ctx, "probe", dir, disk.ProbePrefix(d.Name())+"*")
		if err != nil {
			return err
		}
		defer remove()
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Sweep implements disk.Driver.
func (d snapDisks) Sweep(ctx context.Context, imageDirs []string, vmDir string) error {
	return disk.SweepFiles(ctx, d.Name(), append(slices.Clone(imageDirs), vmDir)...)
}

func (d snapDisks) Ensure(ctx context.Context, o disk.Overlay) (disk.Attached, error) {
	if _, err := os.Stat(o.Base); err != nil {
		return disk.Attached{}, err
	}
	err := file.Create(ctx, "overlay", o.Path, func(tmp string) error { return os.WriteFile(tmp, []byte(wellStore+o.Base+"\n"), 0o600) })
	if err != nil {
		return disk.Attached{}, err
	}
	h, err := d.Health(ctx, o)
	if err == nil && h.State != disk.StoreOK {
		err = vm.Errorf(vm.CodeCorrupt, "overlay %s is %s", o.Path, h.State)
	}
	if err != nil {
		return disk.Attached{}, err
	}
	name := dmOf(vm.ID(o.ID))
	d.shared <- struct{}{}
	defer func() { <-d.shared }()
	base, err := d.loop(ctx, o.Base, true)
	if err != nil {
		return disk.Attached{}, err
	}
	cow, err := d.loop(ctx, o.Path, false)
	if err != nil {
		return disk.Attached{}, err
	}
	if err := d.device(ctx, name, base, cow); err != nil {
		return disk.Attached{}, fmt.Errorf("make device %s: %w", name, err)
	}
	return disk.Attached{Path: "/dev/mapper/" + name, Format: "raw", Block: true, BaseLoop: base, CowLoop: cow, DMName: name}, nil
}

// device makes one that is of use, in the steps of host/dm; one that is not is replaced.
func (d snapDisks) device(ctx context.Context, name string, on ...string) error {
	switch now, there := d.k.findDM(name); {
	case there && now.resumed && !now.wiped:
		return nil
	case there:
		if err := act.Do(ctx, "dm.remove", func() error { return d.k.removeDM(name) }); err != nil {
			return err
		}
	}
	if err := act.Do(ctx, "dm", func() error { return d.k.makeDM(name) }); err != nil {
		return err
	}
	err := act.Do(ctx, "dm.table", func() error { return d.k.loadDM(name, on...) })
	if err == nil {
		err = act.Do(ctx, "dm.resume", func() error { return d.k.resumeDM(name) })
	}
	if err != nil {
		return errors.Join(err, act.Do(context.WithoutCancel(ctx), "dm.remove", func() error { return d.k.removeDM(name) }))
	}
	return nil
}

func (d snapDisks) loop(ctx context.Context, path string, readOnly bool) (string, error) {
	if name, ok := d.k.loopOf(path); ok {
		return name, nil
	}
	if err := act.Do(ctx, "loop", func() error { return d.k.makeLoop(path, readOnly) }); err != nil {
		return "", fmt.Errorf("make loop device on %s: %w", path, err)
	}
	name, _ := d.k.loopOf(path)
	return name, nil
}

func (d snapDisks) Detach(ctx context.Context, o disk.Overlay) error {
	name := dmOf(vm.ID(o.ID))
	var err error
	if _, there := d.k.findDM(name); there {
		err = act.Do(ctx, "dm.remove", func() error { return d.k.removeDM(name) })
	}
	err = errors.Join(err, d.drop(ctx, o.Path))
	d.shared <- struct{}{}
	defer func() { <-d.shared }()
	if name, ok := d.k.loopOf(o.Base); ok && d.k.loopIsUsed(name) {
		return err
	}
	return errors.Join(err, d.drop(ctx, o.Base))
}

func (d snapDisks) drop(ctx context.Context, path string) error {
	name, ok := d.k.loopOf(path)
	if !ok {
		return nil
	}
	if err := act.Do(ctx, "loop.remove", func() error { return d.k.removeLoop(name) }); err != nil {
		return fmt.Errorf("remove loop device on %s: %w", path, err)
	}
	return nil
}

func (d snapDisks) Flatten(ctx context.Context, o disk.Overlay, dst string) error {
	return disk.FlattenError(o, file.Copy(ctx, dst, o.Path))
}

func (d snapDisks) Remove(ctx context.Context, o disk.Overlay) error {
	if err := d.Detach(ctx, o); err != nil {
		return err
	}
	return file.Remove(ctx, "overlay", o.Path)
}

// bridgeNet is a bridge with a tap device for each VM and one table of rules, in the order of network/bridge.
type bridgeNet struct {
	k     *machine
	turn  chan struct{}
	ports map[vm.ID]network.Port // nil = Apply was not called
}

var (
	_ network.Driver  = (*bridgeNet)(nil)
	_ network.Applier = (*bridgeNet)(nil)
	_ network.Plugger = (*bridgeNet)(nil)
)

func newNetwork(k *machine) *bridgeNet { return &bridgeNet{k: k, turn: make(chan struct{}, 1)} }

func (*bridgeNet) Name() string                { return "bridge" }
func (*bridgeNet) Suits(string) bool           { return true }
func (*bridgeNet) Probe(context.Context) error { return nil }
func (*bridgeNet) Subnet() netip.Prefix        { return netip.MustParsePrefix("10.9.0.0/24") }
func (*bridgeNet) Address() string             { return "" }

func (n *bridgeNet) Apply(ctx context.Context, ports []network.Port) error {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	n.ports = map[vm.ID]network.Port{}
	for _, p := range ports {
		n.ports[p.ID] = p
	}
	if len(ports) > 0 {
		return n.bringUp(ctx)
	}
	var err error
	if n.k.getRules() != nil {
		err = act.Do(ctx, "rules.remove", func() error { return n.k.setRules(nil) })
	}
	if n.k.hasBridge() {
		err = errors.Join(err, act.Do(ctx, "bridge.remove", n.k.removeBridge))
	}
	return err
}

func (n *bridgeNet) bringUp(ctx context.Context) error {
	if !n.k.hasBridge() {
		if err := act.Do(ctx, "bridge", n.k.makeBridge); err != nil {
			return err
		}
	}
	rules := []string{}
	for id, p := range n.ports {
		rules = append(rules, ruleOf(id, p.Addr.String()))
	}
	return act.Do(ctx, "rules", func() error { return n.k.setRules(rules) })
}

func ruleOf(id vm.ID, addr string) string { return tapOf(id) + " " + addr }

func (n *bridgeNet) Plug(ctx context.Context, p network.Port) (network.Attached, error) {
	tap := tapOf(p.ID)
	if !n.k.hasTap(tap) {
		if err := act.Do(ctx, "tap", func() error { return n.k.makeTap(tap, aliasOf(p.ID)) }); err != nil {
			return network.Attached{}, fmt.Errorf("make tap device %s: %w", tap, err)
		}
	}
	return network.Attached{NIC: &vmm.NIC{Tap: tap, MAC: network.MAC(p.ID)}, TapDevice: tap}, nil
}

func (n *bridgeNet) Ensure(ctx context.Context, p network.Port) (network.Attached, error) {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	if n.ports == nil {
		return network.Attached{}, errors.New("attach a VM to a bridge whose other VMs are not known yet")
	}
	if n.ports[p.ID] != p {
		n.ports[p.ID] = p
		if err := n.bringUp(ctx); err != nil {
			return network.Attached{}, err
		}
	}
	a, err := n.Plug(ctx, p)
	if err == nil && !n.k.hasJoined(a.TapDevice) {
		err = act.Do(ctx, "tap.port", func() error { return n.k.joinTap(a.TapDevice) })
	}
	return a, err
}

func (n *bridgeNet) Remove(ctx context.Context, id vm.ID) error {
	if !n.k.hasTap(tapOf(id)) {
		return nil
	}
	return act.Do(ctx, "tap.remove", func() error { return n.k.removeTap(tapOf(id)) })
}

// cgroups are directories of the kernel's.
type cgroups struct{ k *machine }

func (c cgroups) Ensure(ctx context.Context, id vm.ID, _ cgroup.Limits) (string, bool, error) {
	dir := cgroupOf(id)
	return dir, true, act.Do(ctx, "cgroup", func() error { return ignore(c.k.makeCgroup(dir), unix.EEXIST) })
}

func (c cgroups) Remove(ctx context.Context, id vm.ID) error {
	return act.Do(ctx, "cgroup.remove", func() error { return ignore(c.k.removeCgroup(cgroupOf(id)), unix.ENOENT) })
}

// workDisk makes a work disk with something in it that must not get lost, and enlarges it. It has a small part of the bytes
// that are asked for: tests read all of it.
func workDisk(ctx context.Context, path string, size int64) error {
	err := file.Create(ctx, "work-disk", path, func(tmp string) error {
		return os.WriteFile(tmp, []byte("work of "+filepath.Base(filepath.Dir(path))+"\n"), 0o600)
	})
	if err != nil {
		return err
	}
	return ext4.Grow(ctx, path, size>>25)
}
