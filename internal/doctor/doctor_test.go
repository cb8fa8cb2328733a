package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/inventory"
	"banger/internal/paths"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
)

type records struct {
	vms     []vm.VMRecord
	images  []vm.Image
	kernels []vm.Kernel
	err     error
}

func (r records) VMs(context.Context) ([]vm.VMRecord, error) { return r.vms, r.err }
func (r records) Images(context.Context) ([]vm.Image, error) { return r.images, r.err }
func (r records) Kernels(context.Context) ([]vm.Kernel, error) {
	return r.kernels, r.err
}

type driver struct {
	vmm.Driver // the rest is never called
	probe      vmm.Probe
	overhead   int64
}

func (d driver) Features() vmm.Features { return vmm.Features{Overhead: d.overhead} }

func (driver) Name() string                      { return "qemu" }
func (d driver) Probe(context.Context) vmm.Probe { return d.probe }

// taking is what New makes, with an answer to what a new VM takes.
func taking(c Config, pending bool, err error) *Doctor {
	c.Auto = func(context.Context) (vmm.Auto, error) {
		if err != nil {
			return vmm.Auto{}, err
		}
		return vmm.Auto{VMM: "qemu", Network: "user", Pending: pending}, nil
	}
	return New(c)
}

func codes(problems []api.Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.Code)
	}
	return all
}

func TestVMMs(t *testing.T) {
	for _, c := range []struct {
		probe          vmm.Probe
		code, severity string
	}{
		{vmm.Probe{Why: "not installed", Hint: "install it"}, "vmm-missing", "error"},
		{vmm.Probe{Usable: true, Accel: "tcg", Version: "7.2", Why: "no KVM", Hint: "switch it on"}, "emulated", "warning"},
		{vmm.Probe{Usable: true, Accel: "kvm", Why: "a guest booted"}, "accelerated", "info"},
	} {
		got, takes := taking(Config{VMMs: []vmm.Driver{driver{probe: c.probe}}}, false, nil).vmms(t.Context())
		if takes != "qemu" || len(got) != 2 || got[1].Code != "auto" || got[1].Text != "new VMs run under qemu, on network user" || got[0].Code != c.code || got[0].Severity != c.severity || !strings.Contains(got[0].Text, c.probe.Why) || strings.Contains(got[0].Text, vmm.Speed(c.probe.Accel)) != c.probe.Usable || got[0].Hint != c.probe.Hint {
			t.Errorf("%+v: %+v", c.probe, got)
		}
	}
}

// The version is told, and what an old one lacks.
func TestVMMVersion(t *testing.T) {
	got, _ := taking(Config{VMMs: []vmm.Driver{driver{probe: vmm.Probe{Usable: true, Accel: "tcg", Version: "7.2.22", Limit: "one processor for all"}}}}, false, nil).vmms(t.Context())
	if !strings.Contains(got[0].Text, "(qemu 7.2.22)") {
		t.Errorf("%+v", got[0])
	}
	want := api.Problem{Code: "vmm-old", Severity: "info", Text: "qemu 7.2.22: one processor for all", Hint: "install a newer qemu"}
	if len(got) != 3 || got[1] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Jails that are off are said loudly: who did it may have forgotten, and who looks may be another.
func TestNoJail(t *testing.T) {
	if got := New(Config{}).jails(t.Context(), 0); len(got) != 0 {
		t.Errorf("with jails: %+v", got)
	}
	got := New(Config{NoJail: true}).jails(t.Context(), 1000)
	if len(got) != 1 || got[0].Code != "no-jail" || got[0].Severity != "warning" || !strings.Contains(got[0].Text, "user 1000") || got[0].Hint == "" {
		t.Errorf("without: %+v", got)
	}
	if got := codes(taking(Config{NoJail: true, Store: records{}}, false, errors.New("no VMM")).Check(t.Context())); !slices.Contains(got, "no-jail") {
		t.Errorf("Check does not tell: %q", got)
	}
}

// Jails that came on are said of where they are not yet.
func TestUnjailed(t *testing.T) {
	d := New(Config{Unjailed: func(context.Context) ([]string, error) { return []string{"web", "db"}, errors.New("no /proc") }})
	got := d.jails(t.Context(), 7)
	if !slices.Equal(codes(got), []string{"unjailed", "unjailed", "jails-unknown"}) {
		t.Fatalf("%+v", got)
	}
	if p := got[1]; p.Severity != "warning" || !strings.Contains(p.Text, "VM db runs with no jail") || !strings.Contains(p.Text, "user 7 ") || p.Hint != "banger vm restart db puts it into one" {
		t.Errorf("%+v", p)
	}
	if d.NoJail = true; !slices.Equal(codes(d.jails(t.Context(), 7)), []string{"no-jail"}) {
		t.Errorf("with jails off: %+v", d.jails(t.Context(), 7))
	}
}

// An installed program that is not what was installed is said, whether another is used in its place or not.
func TestPrograms(t *testing.T) {
	d := New(Config{Programs: func(context.Context) ([]api.VMM, error) {
		return []api.VMM{
			{Name: "firecracker", Version: "1.12.1", Origin: api.OriginInstalled, Error: "it was changed"},
			{Name: "firecracker", Version: "1.11.0", Origin: api.OriginInstalled},
			{Name: "firecracker", Version: "1.4.0", Origin: api.OriginPath, Error: "not supported"},
		}, nil
	}})
	want := []api.Problem{{Code: "vmm-damaged", Severity: "warning", Text: "firecracker 1.12.1, which banger has installed, is of no use: it was changed",
		Hint: "banger vmm install firecracker --version 1.12.1 gets it anew, banger vmm delete firecracker 1.12.1 removes it"}}
	if got := d.programs(t.Context()); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	d.Programs = func(context.Context) ([]api.VMM, error) { return nil, errors.New("no right to look") }
	if got := d.programs(t.Context()); !slices.Equal(codes(got), []string{"vmms-unknown"}) {
		t.Errorf("%+v", got)
	}
}

// That VMs are not held within the limits they should have is said, of a VMM that has some and can be used.
func TestLimits(t *testing.T) {
	why := "a controller is missing"
	c := Config{Unlimited: func() string { return why }}
	for _, d := range []struct {
		driver
		want []string
	}{
		{driver{probe: vmm.Probe{Usable: true}, overhead: 128}, []string{"no-limits"}},
		{driver{probe: vmm.Probe{Usable: true}}, nil},
		{driver{overhead: 128}, nil},
	} {
		c.VMMs = []vmm.Driver{d.driver}
		got := New(c).limits(t.Context())
		if !slices.Equal(codes(got), d.want) || len(got) > 0 && !strings.Contains(got[0].Text, why) {
			t.Errorf("%+v: %+v", d, got)
		}
	}
	c.VMMs, why = []vmm.Driver{driver{probe: vmm.Probe{Usable: true}, overhead: 128}}, ""
	if got := New(c).limits(t.Context()); len(got) != 0 {
		t.Errorf("they are held: %+v", got)
	}
}

func TestRecords(t *testing.T) {
	p := paths.Under(testhost.Dir(t))
	check := func(r records) []string { return codes(New(Config{Paths: p, Store: r}).records(t.Context())) }
	if got := check(records{err: vm.Errorf(vm.CodeCorrupt, "no database")}); !slices.Equal(got, []string{"database"}) {
		t.Errorf("%q", got)
	}
	if got := check(records{}); !slices.Equal(got, []string{"no-image"}) {
		t.Errorf("%q", got)
	}
	if got := check(records{images: make([]vm.Image, 1)}); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// One VMM that can be used is enough: another that is not installed is no error then.
func TestOneVMMIsEnough(t *testing.T) {
	absent, there := driver{probe: vmm.Probe{Why: "not installed"}}, driver{probe: vmm.Probe{Usable: true, Accel: "tcg"}}
	got, _ := taking(Config{VMMs: []vmm.Driver{absent, there}}, false, nil).vmms(t.Context())
	if !slices.Equal(codes(got), []string{"vmm-unused", "emulated", "auto"}) {
		t.Errorf("%+v", got)
	}
}

// What is wrong with a better VMM, which could be used, is said: nothing else would.
func TestABetterVMMIsPassedOver(t *testing.T) {
	c := Config{VMMs: []vmm.Driver{driver{probe: vmm.Probe{Usable: true, Accel: "tcg", Why: "no KVM"}}}}
	c.Auto = func(context.Context) (vmm.Auto, error) {
		return vmm.Auto{VMM: "qemu", Network: "user", Passed: fmt.Errorf("not firecracker: %w", vm.Errorf(vm.CodeConflict, "the bridge is somebody else's").WithHint("ask them"))}, nil
	}
	got, takes := New(c).vmms(t.Context())
	want := api.Problem{Code: "auto-passed-over", Severity: "warning", Text: "new VMs run under qemu, not firecracker: the bridge is somebody else's", Hint: "ask them"}
	if !slices.Contains(got, want) || takes != "qemu" {
		t.Errorf("%+v, %s", got, takes)
	}
}

func TestWhatANewVMTakes(t *testing.T) {
	there := Config{VMMs: []vmm.Driver{driver{probe: vmm.Probe{Usable: true, Accel: "kvm"}}}}
	last := func(c Config, pending bool, err error) (api.Problem, string) {
		got, takes := taking(c, pending, err).vmms(t.Context())
		return got[len(got)-1], takes
	}
	if p, _ := last(there, true, nil); p.Code != "auto" || !strings.Contains(p.Text, "if it proves to run guests") {
		t.Errorf("not proven yet: %+v", p)
	}
	unfit := vm.Errorf(vm.CodeMissing, "no network suits it").WithHint("make one")
	if p, takes := last(there, false, unfit); p.Code != "auto-none" || p.Severity != "error" || !strings.Contains(p.Text, "no network") || p.Hint != "make one" || takes != "" {
		t.Errorf("no network: %+v, %s", p, takes)
	}
	if p, _ := last(Config{VMMs: []vmm.Driver{driver{}}}, false, unfit); p.Code != "vmm-missing" {
		t.Errorf("no VMM, which was said: %+v", p)
	}
}

// Orphans are problems, whether they can be removed or not; nothing else of what is ours is.
func TestOrphans(t *testing.T) {
	object := func(status inventory.Status, name, kept string) inventory.Finding {
		return inventory.Finding{Object: inventory.Object{Kind: "tap device", Name: name}, Status: status, Why: "nobody has it", Kept: kept}
	}
	var lookErr error
	d := New(Config{Store: records{images: make([]vm.Image, 1)}, Inventory: func(context.Context) ([]inventory.Finding, error) {
		return []inventory.Finding{object(inventory.Owned, "bt1", ""), object(inventory.Orphan, "bt2", ""), object(inventory.Foreign, "bt3", ""),
			object(inventory.Orphan, "bt4", "it is dear to somebody")}, lookErr
	}})
	got := d.records(t.Context())
	want := []api.Problem{
		{Code: "orphan", Severity: "warning", Text: "tap device bt2 is left over: nobody has it", Hint: "banger doctor --leaks --fix"},
		{Code: "orphan", Severity: "warning", Text: "tap device bt4 is left over: nobody has it", Hint: "it is kept: it is dear to somebody"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	lookErr = errors.New("the light went out")
	if got := d.records(t.Context()); len(got) != 3 || got[0].Code != "orphans-unknown" || !strings.Contains(got[0].Text, "the light went out") {
		t.Errorf("a look that failed: %+v", got)
	}
}
