package crashtest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/publish"
	"banger/internal/vm"
)

// hostPort is a port of the host that a process listens on. It goes with the process.
type hostPort struct {
	k    *machine
	by   *life
	at   vm.Port
	once sync.Once
	gone chan struct{}
}

// listen takes a port for a daemon.
func (k *machine) listen(by *life, p vm.Port) (publish.Socket, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.HostPort == 0 {
		k.portNo++
		p.HostPort = 40_000 + k.portNo
	}
	for h := range k.ports {
		if h.at.Overlaps(p) && !h.by.dead() {
			return publish.Socket{}, unix.EADDRINUSE
		}
	}
	h := &hostPort{k: k, by: by, at: p, gone: make(chan struct{})}
	k.ports[h] = true
	return publish.Socket{Stream: h}, nil
}

func (h *hostPort) Accept() (net.Conn, error) {
	<-h.gone
	return nil, net.ErrClosed
}

func (h *hostPort) Close() error {
	h.once.Do(func() {
		h.k.mu.Lock()
		defer h.k.mu.Unlock()
		delete(h.k.ports, h)
		close(h.gone)
	})
	return nil
}

func (h *hostPort) Addr() net.Addr { return &net.TCPAddr{Port: h.at.HostPort} }

// openPorts are those of processes that live. k.mu is held.
func (k *machine) openPorts() (all []string) {
	for h := range k.ports {
		if !h.by.dead() {
			all = append(all, "port "+h.at.Host())
		}
	}
	return all
}

func tcp(host, guest int) vm.Port {
	return vm.Port{HostIP: vm.DefaultHostIP, HostPort: host, GuestPort: guest, Protocol: vm.ProtocolTCP}
}

// makePublished is a VM that runs and publishes two ports, one of them at a number that the system chose.
func makePublished(r *run) {
	must(r, create(r, api.CreateRequest{Name: web, Start: true, Ports: []vm.Port{tcp(8080, 80), tcp(0, 81)}}))
	if v, ok := r.record(web); ok {
		r.w.guestWrites(v.ID)
	}
}

func changePorts(r *run) answer {
	return r.call("POST", "/v1/vms/web/ports", api.PortsRequest{Add: []vm.Port{tcp(8443, 443), tcp(0, 90)}, Remove: []string{"80"}})
}

// portsChanged holds that all of the change is so, or nothing. What is open, rest has held against the record.
func portsChanged(r *run, a answer) error {
	v, there := r.record(web)
	var guests []int
	for _, p := range v.Spec.Ports {
		guests = append(guests, p.GuestPort)
		if p.HostPort == 0 {
			return fmt.Errorf("a port without a number is recorded: %+v", p)
		}
	}
	slices.Sort(guests)
	before, after := slices.Equal(guests, []int{80, 81}), slices.Equal(guests, []int{81, 90, 443})
	if !there || !before && !after || a.acked && !after {
		return fmt.Errorf("there: %v, it publishes %v", there, v.Spec.Ports)
	}
	return nil
}

// portOperations are about what VMs publish.
func portOperations(created, started func(*run, answer) error, running func(*run, answer) error) []operation {
	published := func(r *run) answer {
		return create(r, api.CreateRequest{Name: web, Start: true, Ports: []vm.Port{tcp(8080, 80), tcp(0, 81)}})
	}
	return []operation{
		{name: "create and start, with ports", covers: []string{"vm-create"}, do: published, kept: created},
		{name: "change ports", covers: []string{"vm-ports-change"}, before: makePublished, do: changePorts, kept: portsChanged},
		{name: "change ports, stopped", covers: []string{"vm-ports-change"}, before: func(r *run) {
			makePublished(r)
			must(r, stop(r))
		}, do: changePorts, kept: portsChanged},
		{name: "start, with ports", settles: true, covers: []string{"vm-start"}, before: func(r *run) {
			makePublished(r)
			must(r, stop(r))
		}, do: start, kept: started},
		{name: "restart, with ports", settles: true, covers: []string{"vm-restart"}, before: makePublished, do: restart, kept: started},
		{name: "daemon start, a VM publishes ports", boots: true, before: makePublished, kept: running},
	}
}

// listenFor is how a daemon of this life takes ports.
func (w *world) listenFor(l *life) func(context.Context, vm.Port) (publish.Socket, error) {
	return func(_ context.Context, p vm.Port) (publish.Socket, error) { return w.k.listen(l, p) }
}
