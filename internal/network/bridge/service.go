package bridge

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/dns"
	"banger/internal/host/link"
	"banger/internal/vm"
)

// service is what runs for as long as there are ports: the resolver, and a watch on the host's routes.
type service struct {
	ctx  context.Context // of all of it: no call's context ends it
	stop func()          // returns when nothing of it runs

	all   sync.WaitGroup
	dns   *dns.Server
	ended chan struct{} // closed when the resolver has ended
}

// settle is how long the host's routes must have been quiet: what changes one changes more.
const settle = time.Second

// serve has the resolver know d.ports, and starts what does not run.
func (d *Driver) serve(ctx context.Context) error {
	if d.service == nil {
		if err := d.startService(ctx); err != nil {
			return err
		}
	}
	s := d.service
	select {
	case <-s.ended:
		if err := d.startResolver(ctx, s); err != nil {
			return err
		}
	default:
	}
	names := make(map[string]netip.Addr, len(d.ports))
	for _, p := range d.ports {
		if d.fits(p.Addr) {
			names[p.Name] = p.Addr
		}
	}
	s.dns.SetNames(names)
	return nil
}

func (d *Driver) startService(caller context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(caller))
	s := &service{ctx: ctx}
	s.stop = func() {
		cancel()
		s.all.Wait()
	}
	if err := d.startResolver(ctx, s); err != nil {
		s.stop()
		return err
	}
	s.all.Go(func() {
		if err := d.watch(ctx); err != nil {
			d.Log.Warn("changes of the host's network are not followed", "error", err)
		}
	})
	d.service = s
	return nil
}

func (d *Driver) startResolver(ctx context.Context, s *service) error {
	var sockets *dns.Sockets
	err := act.Do(ctx, "resolver", func() (err error) {
		sockets, err = dns.Listen(netip.AddrPortFrom(d.gateway.Addr(), 53))
		return err
	})
	if errors.Is(err, unix.EADDRINUSE) {
		return vm.Errorf(vm.CodeConflict, "%v", err).
			WithHint("another resolver of this host answers on all of its addresses: let it listen on its own, or except interface %s", d.Config.Name)
	}
	if err != nil {
		return err
	}
	server := dns.New(dns.Config{Subnet: d.Config.Subnet, Address: d.gateway.Addr(), Hosts: d.ResolvConf, Log: d.Log})
	ended := make(chan struct{})
	s.dns, s.ended = server, ended
	s.all.Go(func() {
		defer close(ended)
		if err := server.Serve(s.ctx, sockets); err != nil {
			d.Log.Error("the guests' resolver ended; the next VM starts it again", "error", err)
		}
	})
	return nil
}

func (d *Driver) stopService() {
	if d.service != nil {
		d.service.stop()
		d.service = nil
	}
}

// watch brings up again what is shared whenever the host's routes change, until ctx ends: a laptop joins another
// network, and another interface must pass packets on; Docker starts, and drops what it does not know.
func (d *Driver) watch(ctx context.Context) error {
	changes, err := link.Changes(ctx)
	if err != nil {
		return err
	}
	for range changes {
		if !quiet(ctx, changes) || d.take(ctx) != nil {
			break
		}
		if len(d.ports) > 0 {
			if err := d.bringUp(ctx); err != nil && ctx.Err() == nil {
				d.Log.Warn("follow a change of the host's network", "error", err)
			}
		}
		d.give()
	}
	if ctx.Err() == nil {
		return errors.New("the kernel tells no more of them")
	}
	return nil
}

// quiet waits until nothing has changed for a while; false when there is nothing more to wait for.
func quiet(ctx context.Context, changes <-chan struct{}) bool {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-changes:
			if !ok {
				return false
			}
			timer.Reset(settle)
		case <-timer.C:
			return true
		}
	}
}
