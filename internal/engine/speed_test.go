package engine

import (
	"context"
	"testing"

	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// probed is a VMM that was found to be like this.
type probed struct {
	vmm.Driver
	probe vmm.Probe
}

func (probed) Name() string                      { return "probed" }
func (p probed) Probe(context.Context) vmm.Probe { return p.probe }

// A VM that runs is as fast as it was launched to be, whatever has become of the host since.
func TestSpeed(t *testing.T) {
	const quick, slow = "at nearly the speed of this machine", "about ten times slower than this machine"
	kvm := vmm.Probe{Usable: true, Accel: "kvm"}
	for _, c := range []struct {
		vmm, seen string
		probe     vmm.Probe
		want      string
	}{
		{"probed", "", kvm, quick},
		{"probed", "tcg", kvm, slow},
		{"probed", "", vmm.Probe{Usable: true, Accel: "tcg"}, slow},
		{"probed", "kvm", vmm.Probe{}, quick},
		{"probed", "", vmm.Probe{}, ""},
		{"gone", "", kvm, ""},
	} {
		e := &Engine{Config: Config{VMMs: []vmm.Driver{probed{fake.New(fake.NewHost(), "probed"), c.probe}}}}
		if got := e.Speed(t.Context(), vm.VMRecord{VMM: c.vmm}, vm.Observed{Accel: c.seen}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
