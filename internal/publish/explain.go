package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/sockets"
	"banger/internal/vm"
)

func addrOf(p vm.Port) netip.Addr {
	a, _ := netip.ParseAddr(p.HostIP)
	return a
}

// explain says why a port of the host cannot be had, who has it as far as that can be known, and what to do.
func (p *Publisher) explain(port vm.Port, err error) error {
	where := fmt.Sprintf("publish port %d/%s of the guest at %s", port.GuestPort, port.Protocol, port.Host())
	another := port
	another.HostPort = 0
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		switch name, its, taken := p.vmWith(port); {
		case taken && name == "":
			return vm.Errorf(vm.CodeConflict, "%s: a VM that is being made has published it", where).
				WithHint("choose another port, or let the system choose: -p %s", another)
		case taken:
			return vm.Errorf(vm.CodeConflict, "%s: VM %s has published it", where, name).
				WithHint("choose another port, or let the system choose: -p %s; or take it from that VM: banger vm ports rm %s %s", another, name, its)
		}
		who := processWith("/proc", port)
		if who == "" {
			who = "another process has it"
		}
		return vm.Errorf(vm.CodeConflict, "%s: %s", where, who).
			WithHint("choose another port, or let the system choose: -p %s; ss -lntup shows who listens", another)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return vm.Errorf(vm.CodeInvalid, "%s: an ordinary user may not open ports below %s", where, firstPort()).
			WithHint("choose a higher one, or let the system choose: -p %s; or have root lower the bound: sysctl net.ipv4.ip_unprivileged_port_start=%d", another, port.HostPort)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return vm.Errorf(vm.CodeInvalid, "%s: this host has no such address", where).WithHint("ip address shows those it has; 0.0.0.0 stands for all of them")
	case errors.Is(err, unix.EAFNOSUPPORT):
		return vm.Errorf(vm.CodeInvalid, "%s: this host has no IPv6", where)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// vmWith names the VM of ours that has what stands in the way, empty where it has no name yet, and its port.
func (p *Publisher) vmWith(port vm.Port) (name string, its vm.Port, taken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for o := range p.taken {
		if o.port.Overlaps(port) {
			if o.of != nil {
				return o.of.name, o.port, true
			}
			return o.name, o.port, true
		}
	}
	return "", vm.Port{}, false
}

// processWith says which process has what stands in the way; empty where that cannot be seen.
func processWith(proc string, port vm.Port) string {
	all, err := sockets.List(proc)
	if err != nil {
		return ""
	}
	var uid int
	inodes := map[uint64]bool{}
	for _, s := range all {
		a, want := s.Addr.Addr().Unmap(), addrOf(port)
		if s.Protocol != port.Protocol || int(s.Addr.Port()) != port.HostPort {
			continue
		}
		// A socket at :: may have the same port of IPv4 as well.
		if a == want || a.IsUnspecified() && (a.Is6() || want.Is4()) || want.IsUnspecified() && a.Is4() == want.Is4() {
			inodes[s.Inode], uid = true, s.UID
		}
	}
	owners, err := sockets.Owners(proc, inodes)
	if err != nil || len(inodes) == 0 {
		return ""
	}
	for _, o := range owners {
		return fmt.Sprintf("process %d (%s) has it", o.PID, strings.Map(printable, o.Name))
	}
	return fmt.Sprintf("a process of user %d has it", uid)
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// firstPort is the lowest that everybody may open.
func firstPort() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return "1024"
	}
	return strings.TrimSpace(string(b))
}
