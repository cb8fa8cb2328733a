package crashtest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// machine is all of a host that is not on a disk. It refuses what a real one would: to make what is there (EEXIST), to
// remove what is in use (EBUSY) or is not there (ENOENT).
type machine struct {
	*fake.Host // its processes

	mu      sync.Mutex
	bridge  bool
	rules   []string          // "tap address", what packets may pass; nil = no table
	taps    map[string]string // name → alias
	joined  map[string]bool   // the taps that are ports of the bridge
	loops   map[string]backing
	dms     map[string]dmDevice
	full    bool // there is no room on its disk: what snapshots would write there waits
	cgroups map[string]bool
	loopNo  int
	ports   map[*hostPort]bool
	portNo  int
}

// dmDevice is made, given a table, and resumed: three calls, and only then of use.
type dmDevice struct {
	on        []string // the loop devices it stands on; none = no table
	wiped     bool     // its table has all fail
	resumed   bool
	suspended bool // it was resumed before
}

type backing struct {
	path     string
	readOnly bool
}

func newMachine() *machine {
	k := &machine{Host: fake.NewHost()}
	k.clear()
	k.Rule(k.usual())
	return k
}

// usual is how machines behave, but where a test says otherwise.
func (k *machine) usual() fake.Rules { return fake.Rules{Launch: k.canLaunch, Linger: true} }

// kill ends a process from outside.
func (k *machine) kill(id proc.Identity) {
	if k.Signal(id, unix.SIGKILL) == nil {
		_ = k.Wait(context.Background(), id)
	}
}

func (k *machine) clear() {
	k.bridge, k.rules, k.taps, k.joined, k.loops, k.dms, k.cgroups, k.ports = false, nil, map[string]string{}, map[string]bool{}, map[string]backing{}, map[string]dmDevice{}, map[string]bool{}, map[*hostPort]bool{}
}

// reboot ends everything that is not on a disk.
func (k *machine) reboot() {
	k.Host.Reboot()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clear()
}

// canLaunch refuses a machine that lacks something a real VMM would open.
func (k *machine) canLaunch(c vmm.Config) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case c.NIC == nil || k.taps[c.NIC.Tap] == "":
		return fmt.Errorf("open the tap device: %w", unix.ENODEV)
	case !k.dms[filepath.Base(c.Root.Path)].resumed:
		return fmt.Errorf("open the root disk: %w", unix.ENOENT)
	case !k.cgroups[c.Cgroup]:
		return fmt.Errorf("start in cgroup %s: %w", c.Cgroup, unix.ENOENT)
	}
	return nil
}

// used says whether a live machine holds something. k.mu may be held.
func (k *machine) used(holds func(vmm.Config) bool) bool {
	for _, c := range k.Machines() {
		if holds(c) {
			return true
		}
	}
	return false
}

func (k *machine) makeBridge() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bridge {
		return unix.EEXIST
	}
	k.bridge = true
	return nil
}

func (k *machine) hasBridge() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bridge
}

func (k *machine) removeBridge() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.bridge:
		return unix.ENOENT
	case len(k.taps) > 0:
		return unix.EBUSY
	}
	k.bridge = false
	return nil
}

// setRules loads the table in one transaction; nil removes it.
func (k *machine) setRules(rules []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if rules == nil && k.rules == nil {
		return unix.ENOENT
	}
	k.rules = slices.Sorted(slices.Values(rules))
	return nil
}

func (k *machine) getRules() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.rules)
}

func (k *machine) makeTap(name, alias string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.taps[name] != "" {
		return unix.EEXIST
	}
	k.taps[name] = alias
	return nil
}

// joinTap makes the tap a port of the bridge; one that no rule looks at must not be.
func (k *machine) joinTap(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.taps[name] == "" || !k.bridge:
		return unix.ENODEV
	case !slices.ContainsFunc(k.rules, func(r string) bool { return strings.HasPrefix(r, name+" ") }):
		return fmt.Errorf("%s would be a port of the bridge without a rule: %w", name, unix.EPERM)
	}
	k.joined[name] = true
	return nil
}

func (k *machine) hasJoined(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.joined[name]
}

func (k *machine) hasTap(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.taps[name] != ""
}

func (k *machine) removeTap(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.taps[name] == "":
		return unix.ENOENT
	case k.used(func(c vmm.Config) bool { return c.NIC != nil && c.NIC.Tap == name }):
		return unix.EBUSY
	}
	delete(k.taps, name)
	delete(k.joined, name)
	return nil
}

// loopOf finds a loop device by its file.
func (k *machine) loopOf(path string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, b := range k.loops {
		if b.path == path {
			return name, true
		}
	}
	return "", false
}

func (k *machine) makeLoop(path string, readOnly bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.loops {
		if b.path == path { // the real kernel takes it; ours never want it
			return unix.EEXIST
		}
	}
	k.loops[fmt.Sprintf("loop%d", k.loopNo)] = backing{path, readOnly}
	k.loopNo++
	return nil
}

func (k *machine) removeLoop(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.loops[name]; !ok {
		return unix.ENXIO
	}
	if k.stacked(name) {
		return unix.EBUSY
	}
	delete(k.loops, name)
	return nil
}

// stacked says whether a device stands on a loop device; k.mu is held.
func (k *machine) stacked(name string) bool {
	for _, d := range k.dms {
		if slices.Contains(d.on, name) {
			return true
		}
	}
	return false
}

func (k *machine) loopIsUsed(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stacked(name)
}

func (k *machine) makeCgroup(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cgroups[name] {
		return unix.EEXIST
	}
	k.cgroups[name] = true
	return nil
}

func (k *machine) removeCgroup(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.cgroups[name]:
		return unix.ENOENT
	case k.used(func(c vmm.Config) bool { return c.Cgroup == name }):
		return unix.EBUSY
	}
	delete(k.cgroups, name)
	return nil
}

// snapshot lists all there is, one object a line, by names that follow from VMs.
func (k *machine) snapshot() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for id, c := range k.Machines() {
		add("process of %s", c.ID)
		_ = id
	}
	if k.bridge {
		add("bridge")
	}
	if k.rules != nil {
		add("rules for %s", strings.Join(k.rules, ", "))
	}
	for name, alias := range k.taps {
		add("tap %s of %q", name, alias)
		if k.joined[name] {
			add("port %s of the bridge", name)
		}
	}
	for _, b := range k.loops {
		add("loop device on %s", b.path)
	}
	for name, d := range k.dms {
		var files []string
		for _, l := range d.on {
			files = append(files, k.loops[l].path)
		}
		add("device %s on %s", name, strings.Join(files, " and "))
		if d.suspended && !k.full {
			add("device %s suspended though there is room", name)
		}
	}
	for name := range k.cgroups {
		add("cgroup %s", name)
	}
	all = append(all, k.openPorts()...)
	slices.Sort(all)
	return all
}

// Names by rule.
func tapOf(id vm.ID) string    { return "bt" + string(id) }
func aliasOf(id vm.ID) string  { return "banger " + string(id) }
func dmOf(id vm.ID) string     { return "banger-" + string(id) }
func cgroupOf(id vm.ID) string { return "/cgroup/banger-" + string(id) }

// ignore makes success of errors that say that what was asked for is so already.
func ignore(err error, none ...error) error {
	for _, n := range none {
		if errors.Is(err, n) {
			return nil
		}
	}
	return err
}
