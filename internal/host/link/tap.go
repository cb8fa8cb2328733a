package link

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Tap is a tap device that stays when nobody has it open, and is a port of a bridge.
type Tap struct {
	Name     string
	Alias    string // marks it as ours: what has the name and another alias is not
	Bridge   string
	MAC      string // of the one card behind it
	UID      int    // who may open it, besides whoever administers networks
	Isolated bool   // from other isolated ports
}

const tun = "/dev/net/tun"

// sticky is NTF_STICKY of linux/neighbour.h.
const sticky = 1 << 6

// tapFlags are those a VMM must give when it opens the device. With headers (vnet_hdr) checksums and large packets are
// left to whoever can do them cheapest.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// EnsureTap makes the tap device, or brings the one that is there to what is asked for. One that is right is not
// touched: a guest may be running on it.
func EnsureTap(ctx context.Context, t Tap) error {
	if err := ensureTap(ctx, t); err != nil {
		return fmt.Errorf("make tap device %s: %w", t.Name, err)
	}
	return nil
}

func ensureTap(ctx context.Context, t Tap) error {
	l, err := ownedTap(ctx, t)
	if err != nil {
		return err
	}
	if l == nil {
		return makeTap(ctx, t, join)
	}
	return join(ctx, l, t)
}

// PlugTap makes the tap device for a VMM to open, and no more: it is down and a port of nothing, so that nothing passes
// until EnsureTap. One that is there, of an earlier run, is taken down.
func PlugTap(ctx context.Context, t Tap) error {
	l, err := ownedTap(ctx, t)
	switch {
	case err == nil && l == nil:
		err = makeTap(ctx, t, func(context.Context, netlink.Link, Tap) error { return nil })
	case err == nil && l.Attrs().RawFlags&unix.IFF_UP != 0:
		err = act.Do(ctx, "tap.down", func() error { return netlink.LinkSetDown(l) })
	}
	if err != nil {
		return fmt.Errorf("make tap device %s: %w", t.Name, err)
	}
	return nil
}

// ownedTap returns the tap device, which belongs to its user then; nil when there is none.
func ownedTap(ctx context.Context, t Tap) (netlink.Link, error) {
	l, err := ourTap(t.Name, t.Alias)
	if l == nil || err != nil {
		return nil, err
	}
	if int(l.Owner) != t.UID {
		err = chown(ctx, t)
	}
	return l, err
}

// RejoinTap brings a tap device that is there to its bridge: the bridge may be another than the one it was attached to.
// An absent one is left so, and so is one that carries no mark, or not yet: who makes it for its VM is told of that.
func RejoinTap(ctx context.Context, t Tap) error {
	l, err := ourTap(t.Name, t.Alias)
	if errors.Is(err, ErrForeign) || l == nil && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if err := join(ctx, l, t); err != nil && !errors.Is(err, unix.ENODEV) { // removed meanwhile
		return fmt.Errorf("attach tap device %s: %w", t.Name, err)
	}
	return nil
}

// CheckTap says why no tap device can be made here.
func CheckTap() error {
	fd, err := unix.Open(tun, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", tun, err)
	}
	return unix.Close(fd)
}

// makeTap makes the device to stay last of all: a death before that takes it away, one after it leaves it whole and
// marked. finish comes before.
func makeTap(ctx context.Context, t Tap, finish func(context.Context, netlink.Link, Tap) error) error {
	fd := -1
	err := act.Do(ctx, "tap.passing", func() (err error) { // gone with this process
		fd, err = openTap(t.Name, unix.IFF_TUN_EXCL)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := act.Do(ctx, "tap.owner", func() error { return unix.IoctlSetInt(fd, unix.TUNSETOWNER, t.UID) }); err != nil {
		return fmt.Errorf("give it to user %d: %w", t.UID, err)
	}
	l, err := find(t.Name)
	if err != nil {
		return err
	}
	if l == nil {
		return errors.New("it went away at once")
	}
	if err := withoutIPv6(ctx, t.Name); err != nil {
		return err
	}
	if err := act.Do(ctx, "tap.alias", func() error { return netlink.LinkSetAlias(l, t.Alias) }); err != nil {
		return fmt.Errorf("mark it: %w", err)
	}
	if err := finish(ctx, l, t); err != nil {
		return err
	}
	return act.Do(ctx, "tap", func() error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) })
}

func openTap(name string, flags uint16) (int, error) {
	fd, err := unix.Open(tun, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tun, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(tapFlags | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// chown gives the device to another user. EBUSY while a VMM has it open.
func chown(ctx context.Context, t Tap) error {
	fd, err := openTap(t.Name, 0)
	if err == nil {
		err = act.Do(ctx, "tap.owner", func() error { return unix.IoctlSetInt(fd, unix.TUNSETOWNER, t.UID) })
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("give it to user %d: %w", t.UID, err)
	}
	return nil
}

// join makes it a port of the bridge, and brings it up. Joining the same bridge again would break the port off for a
// moment.
func join(ctx context.Context, l netlink.Link, t Tap) error {
	b, err := find(t.Bridge)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("there is no bridge %s", t.Bridge)
	}
	if l.Attrs().MasterIndex != b.Attrs().Index {
		if err := act.Do(ctx, "tap.port", func() error { return netlink.LinkSetMaster(l, b) }); err != nil {
			return fmt.Errorf("attach it to %s: %w", t.Bridge, err)
		}
	}
	if err := act.Do(ctx, "tap.isolation", func() error { return netlink.LinkSetIsolated(l, t.Isolated) }); err != nil {
		return fmt.Errorf("set its isolation: %w", err)
	}
	if err := fix(ctx, l, t); err != nil {
		return err
	}
	return act.Do(ctx, "tap.up", func() error { return netlink.LinkSetUp(l) })
}

// fix has the bridge know which card is behind the port, and believe no frame. It would learn even from those to
// link-local addresses, which it keeps to itself and no packet rule of ours sees: a guest could take another's traffic.
// The entry replaces what was learned before, and as a sticky one it does not move.
func fix(ctx context.Context, l netlink.Link, t Tap) error {
	mac, err := net.ParseMAC(t.MAC)
	if err != nil {
		return err
	}
	if err := act.Do(ctx, "tap.learning", func() error { return netlink.LinkSetLearning(l, false) }); err != nil {
		return fmt.Errorf("set its learning: %w", err)
	}
	if err := act.Do(ctx, "tap.flood", func() error { return netlink.LinkSetFlood(l, false) }); err != nil {
		return fmt.Errorf("set its flooding: %w", err)
	}
	// Not permanent: that is what the kernel calls an address of the host's own.
	card := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER | sticky, State: unix.NUD_NOARP, HardwareAddr: mac,
	}
	if err := act.Do(ctx, "tap.card", func() error { return netlink.NeighSet(card) }); err != nil {
		return fmt.Errorf("tell the bridge of the card %s: %w", mac, err)
	}
	return nil
}

// ourTap returns the tap device, nil when there is none. One without the mark is an error.
func ourTap(name, alias string) (*netlink.Tuntap, error) {
	l, err := find(name)
	if l == nil || err != nil {
		return nil, err
	}
	t, ok := l.(*netlink.Tuntap)
	if !ok || t.Mode != netlink.TUNTAP_MODE_TAP || t.Alias != alias {
		return nil, fmt.Errorf("interface %s (%s, alias %q) is %w", name, l.Type(), l.Attrs().Alias, ErrForeign)
	}
	return t, nil
}

// RemoveTap removes the tap device. Removing what is absent is success, and so is leaving alone what has another mark.
func RemoveTap(ctx context.Context, name, alias string) error {
	l, err := ourTap(name, alias)
	if errors.Is(err, ErrForeign) || err == nil && l == nil {
		return nil
	}
	if err == nil {
		err = act.Do(ctx, "tap.remove", func() error { return netlink.LinkDel(l) })
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove tap device %s: %w", name, err)
	}
	return nil
}

// Ports lists the names and aliases of the tap devices on a bridge.
func Ports(bridge string) (map[string]string, error) {
	b, err := find(bridge)
	if b == nil || err != nil {
		return nil, err
	}
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	ports := map[string]string{}
	for _, l := range links {
		if _, ok := l.(*netlink.Tuntap); ok && l.Attrs().MasterIndex == b.Attrs().Index {
			ports[l.Attrs().Name] = l.Attrs().Alias
		}
	}
	return ports, nil
}

// list asks again when the kernel says that the list changed while it was read. It does so for ever only on a host
// where interfaces come and go all the time: then the last answer counts.
func list[T any](ask func() ([]T, error)) (all []T, err error) {
	for range 5 {
		if all, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}
