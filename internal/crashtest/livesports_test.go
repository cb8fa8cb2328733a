package crashtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"banger/internal/api"
	"banger/internal/vm"
)

// Each VM of a random life has one port of the host that only it asks for: two that want the same are told so, which is
// another test's.
const guestFixed, guestChosen = 80, 81

func fixedPort(name string) vm.Port { return tcp(8000+len(name)*10+int(name[0])%10, guestFixed) }

// published is what a new VM publishes.
func (l *alive) published(name string) []vm.Port {
	return rapid.SampledFrom([][]vm.Port{nil, nil, {fixedPort(name)}, {tcp(0, guestChosen), fixedPort(name)}}).Draw(l.t, "ports")
}

// changePorts publishes a port of a VM, or no longer, or one instead of another, and notes what the client was told.
// Where there is no such VM, it is another's, if there is any: else few lives would have to do with ports.
func (l *alive) changePorts(name string) answer {
	for _, other := range slices.Sorted(maps.Keys(l.told)) {
		if !l.told[name] && l.told[other] {
			name = other
		}
	}
	req := rapid.SampledFrom([]api.PortsRequest{
		{Add: []vm.Port{fixedPort(name)}}, {Add: []vm.Port{tcp(0, guestChosen)}}, {Remove: []string{"80"}}, {Remove: []string{"81"}},
		{Add: []vm.Port{tcp(0, guestChosen)}, Remove: []string{"80"}},
	}).Draw(l.t, "change")
	told := map[string]bool{}
	for _, p := range req.Add {
		told[fmt.Sprint(name, " ", p.GuestPort)] = true
	}
	for _, p := range req.Remove {
		told[name+" "+p] = false
	}
	for port := range told {
		delete(l.ports, port)
	}
	a := l.r.call("POST", api.PathVMs+"/"+name+"/ports", req)
	for port, is := range told {
		if a.acked {
			l.ports[port] = is
		}
	}
	return a
}

// noPorts forgets what the client was told of a VM's ports: another may get its name.
func (l *alive) noPorts(name string) {
	for port := range l.ports {
		if strings.HasPrefix(port, name+" ") {
			delete(l.ports, port)
		}
	}
}

// portsKept holds what the client was told against the records. What is open, rest has held against them.
func (l *alive) portsKept(records []vm.VMRecord) error {
	var errs []error
	for port, told := range l.ports {
		is := slices.ContainsFunc(records, func(v vm.VMRecord) bool {
			return slices.ContainsFunc(v.Spec.Ports, func(p vm.Port) bool { return fmt.Sprint(v.Name, " ", p.GuestPort) == port })
		})
		if is != told {
			errs = append(errs, fmt.Errorf("lost: the client was told that port %s is published: %v; it is: %v", port, told, is))
		}
	}
	return errors.Join(errs...)
}
