// Package bridge is the network of guests with addresses of their own: a bridge of the host, a tap device on it for
// each VM, and one table of packet rules by which guests reach the world in the host's name, and neither each other nor
// the host nor a cloud's metadata, unless allowed. A resolver in this process answers them.
//
// All of it has names by rule and is found again with nothing but the configuration; it stays when this process ends,
// but for the resolver. It must not decide which VMs there are: Apply is told.
package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"banger/internal/guest"
	"banger/internal/host/link"
	"banger/internal/host/nft"
	"banger/internal/network"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Config is what a Driver is made of.
type Config struct {
	Name   string       // of the bridge, and of its table: one daemon's alone
	Subnet netip.Prefix // IPv4, of the guests; its first address is the host's

	Peers    bool // guests reach each other
	Host     bool // guests reach all of the host's services
	Metadata bool // guests reach link-local addresses and the metadata services of clouds

	ResolvConf string // of the host; empty = /etc/resolv.conf
	Log        *slog.Logger
}

// NameFor is a bridge's name by rule, one for each root that a daemon has its state in; empty = the host's own.
func NameFor(root string) string {
	if root == "" {
		return "banger0"
	}
	sum := sha256.Sum256([]byte("banger bridge of " + root))
	return "bng" + hex.EncodeToString(sum[:4])
}

// isBridge says whether an interface is called as our daemons call their bridges.
func isBridge(name string) bool {
	hash, ok := strings.CutPrefix(name, "bng")
	return name == "banger0" || ok && len(hash) == 8 && strings.Trim(hash, "0123456789abcdef") == ""
}

// Driver implements network.Driver and network.Applier. Apply comes first: until then it knows none of the VMs that
// share the bridge, and an Ensure would cut those off that run.
type Driver struct {
	Config
	gateway netip.Prefix // the host's address, with the network's length

	taken   atomic.Bool            // the kernel has taken our rules, or said that it would
	turn    chan struct{}          // whoever acts on what is shared holds it, and what follows is theirs
	ports   map[vm.ID]network.Port // by Apply and Ensure; nil = Apply was not called
	applied bool                   // and all of them are on the host
	service *service               // the resolver; nil = none runs
	warned  bool                   // of rules that we cannot see
}

var (
	_ network.Driver  = (*Driver)(nil)
	_ network.Applier = (*Driver)(nil)
	_ network.Plugger = (*Driver)(nil)
)

// New makes the driver. It does nothing to the host.
func New(c Config) *Driver {
	c.Subnet = c.Subnet.Masked()
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	return &Driver{
		Config:  c,
		gateway: netip.PrefixFrom(c.Subnet.Addr().Next(), c.Subnet.Bits()),
		turn:    make(chan struct{}, 1),
	}
}

// tap is a VM's tap device by rule.
func (d *Driver) tap(id vm.ID, uid int) link.Tap {
	return link.Tap{
		Name: tapName(id), Alias: tapAlias(id), Bridge: d.Config.Name, MAC: network.MAC(id), UID: uid, Isolated: !d.Peers,
	}
}

func tapName(id vm.ID) string  { return "bt" + string(id) }
func tapAlias(id vm.ID) string { return "banger " + string(id) }

// Name implements network.Driver.
func (*Driver) Name() string { return "bridge" }

// Suits implements network.Driver: every VMM opens tap devices.
func (*Driver) Suits(string) bool { return true }

// Subnet implements network.Driver.
func (d *Driver) Subnet() netip.Prefix { return d.Config.Subnet }

// Address implements network.Driver: each guest has another.
func (*Driver) Address() string { return "" }

// Probe implements network.Driver. It changes nothing: the kernel is asked, once, whether it would take the rules.
func (d *Driver) Probe(ctx context.Context) error {
	if s := d.Config.Subnet; !s.Addr().Is4() || s.Bits() < 8 || s.Bits() > 29 {
		return fmt.Errorf("the subnet %s is no IPv4 network of 8 to %d addresses", s, 1<<24)
	}
	if os.Geteuid() != 0 {
		return vm.Errorf(vm.CodeMissing, "bridges and packet rules take root").
			WithHint("the user network takes none: leave --network at auto; or run banger as root, whose VMs are others")
	}
	if err := link.CheckTap(); err != nil {
		return err
	}
	if _, err := link.FindBridge(d.Config.Name); errors.Is(err, link.ErrForeign) {
		return vm.Errorf(vm.CodeConflict, "%w", err).WithHint("give that interface another name, or remove it")
	} else if err != nil {
		return err
	}
	uses, err := link.Uses()
	if err != nil {
		return err
	}
	if err := overlap(uses, d.Config.Subnet, d.Config.Name); err != nil {
		return err
	}
	if err := nft.Installed(); err != nil {
		return err
	}
	if _, err := nft.Forwarding(d.Config.Name); err != nil {
		return err
	}
	if !d.taken.Load() {
		if err := nft.Check(ctx, d.table(nil, nil)); err != nil {
			return fmt.Errorf("the kernel does not take our packet rules: %w", err)
		}
		d.taken.Store(true)
	}
	return ctx.Err()
}

// overlap says what of the host's would be cut off by a subnet of ours. A default route, or one of the two halves that
// VPNs put in its place, leads to all that nobody else has.
func overlap(uses []link.Use, subnet netip.Prefix, bridge string) error {
	for _, u := range uses {
		if u.Link == bridge || u.Route && u.Range.Bits() <= 1 || !u.Range.Overlaps(subnet) {
			continue
		}
		what := fmt.Sprintf("the network %s of interface %s", u.Range, u.Link)
		if u.Route {
			what = fmt.Sprintf("the host's route to %s", u.Range)
		}
		return vm.Errorf(vm.CodeConflict, "the guests' subnet %s overlaps with %s", subnet, what).
			WithHint("configure another subnet for the bridge, one that the host neither has nor reaches")
	}
	return nil
}

// Plug implements network.Plugger.
func (d *Driver) Plug(ctx context.Context, p network.Port) (network.Attached, error) {
	if err := errors.Join(ctx.Err(), d.checkAddress(p)); err != nil {
		return network.Attached{}, err
	}
	if err := d.free(); err != nil { // Ensure would say it, but only to a machine that is booting
		return network.Attached{}, err
	}
	return d.attached(p), link.PlugTap(ctx, d.tap(p.ID, p.UID))
}

// Ensure implements network.Driver. The packet rules are there before the tap device is a port of the bridge.
func (d *Driver) Ensure(ctx context.Context, p network.Port) (network.Attached, error) {
	return d.attached(p), d.ensure(ctx, p)
}

// attached tells of a VM's interface.
func (d *Driver) attached(p network.Port) network.Attached {
	mac := network.MAC(p.ID)
	return network.Attached{
		NIC: &vmm.NIC{Tap: tapName(p.ID), MAC: mac},
		Guest: &guest.Network{
			MAC:         mac,
			Address:     netip.PrefixFrom(p.Addr, d.gateway.Bits()).String(),
			Gateway:     d.gateway.Addr().String(),
			Nameservers: []string{d.gateway.Addr().String()},
			Search:      []string{"vm"},
		},
		TapDevice: tapName(p.ID),
	}
}

func (d *Driver) checkAddress(p network.Port) error {
	if d.fits(p.Addr) {
		return nil
	}
	return vm.Errorf(vm.CodeConflict, "the address %s of VM %s is none for a guest of %s", p.Addr, p.Name, d.Config.Subnet).
		WithHint("the subnet was another when the VM was made: set network.bridge.subnet in config.toml back to that, or delete the VM and make it anew")
}

func (d *Driver) ensure(ctx context.Context, p network.Port) error {
	if err := d.checkAddress(p); err != nil {
		return err
	}
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	if d.ports == nil {
		return errors.New("attach a VM to a bridge whose other VMs are not known yet")
	}
	if have := d.ports[p.ID]; !d.applied || have.Addr != p.Addr || have.Name != p.Name {
		d.ports[p.ID] = p
		if err := d.bringUp(ctx); err != nil {
			return err
		}
	}
	return link.EnsureTap(ctx, d.tap(p.ID, p.UID))
}

// Remove implements network.Driver. What is shared stays, with the VM's place in it.
func (d *Driver) Remove(ctx context.Context, id vm.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return link.RemoveTap(ctx, tapName(id), tapAlias(id))
}

// List returns the VMs that have a tap device on the bridge.
func (d *Driver) List() ([]vm.ID, error) {
	ports, err := link.Ports(d.Config.Name)
	if err != nil {
		return nil, err
	}
	var ids []vm.ID
	for name, alias := range ports {
		if id, err := vm.ParseID(name[min(2, len(name)):]); err == nil && name == tapName(id) && alias == tapAlias(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (d *Driver) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Driver) give() { <-d.turn }
