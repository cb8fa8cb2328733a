package e2e

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/vm"
)

// portOperations are about what a VM publishes. They are the daemon's, and on every VMM alike: the host has them.
var portOperations = []operation{
	{name: "run -p", before: absent, args: []string{"vm", "run", "-d", "-q", "-p", "80", "--name", subject}, then: publishes("80"), slow: true},
	{name: "ports add", before: running, args: []string{"vm", "ports", "add", subject, "81"}, then: publishes("81")},
}

// publishes holds that a VM publishes a port of its guest, or does not, and that what it publishes is open while it runs. Then it
// is published no more: other operations begin without.
func publishes(port string) func(*matrix, outcome) {
	return func(m *matrix, c outcome) {
		c.Helper()
		b := m.with(c.T)
		if len(b.list()) == 0 {
			return // which the caller judges
		}
		v := b.until(subject, "looked at", 2*time.Minute, func(v api.VMView) bool {
			open := !slices.ContainsFunc(v.Ports, func(p api.PortStatus) bool { return p.State != api.PortOpen })
			return v.State == vm.StateStopped || v.State == vm.StateError || v.Observed.Ready && open
		})
		is := slices.ContainsFunc(v.Spec.Ports, func(p vm.Port) bool { return fmt.Sprint(p.GuestPort) == port })
		if !is && c.code == 0 {
			m.lost(c, "the command succeeded, and it does not publish port "+port)
		}
		if !is {
			return
		}
		p := v.Spec.Ports[0]
		conn, err := net.Dial("tcp4", p.Host()) // nobody listens in the guest: an open port may be quick to say so
		if closed := errors.Is(err, unix.ECONNREFUSED); closed == v.Observed.Alive {
			c.Errorf("it is %s, and port %s: %v", v.State, p, err)
		}
		if err == nil {
			_ = conn.Close()
		}
		b.ok("vm", "ports", "remove", subject, port)
		if l, err := net.Listen("tcp4", p.Host()); err != nil {
			c.Errorf("a port that was published is not free: %v", err)
		} else {
			_ = l.Close()
		}
	}
}
