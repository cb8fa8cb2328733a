package engine

import (
	"testing"

	"banger/internal/host/cgroup"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// known is a VMM of which is known what it needs for itself.
type known struct{ vmm.Driver }

func (known) Name() string           { return "known" }
func (known) Features() vmm.Features { return vmm.Features{Overhead: 32} }

func TestLimits(t *testing.T) {
	unknown := fake.New(fake.NewHost(), "unknown")
	e := &Engine{Config: Config{VMMs: []vmm.Driver{unknown, known{unknown}}}}
	for name, want := range map[string]cgroup.Limits{
		"known":   {Memory: (256 + 32) << 20, CPUs: 3}, // a guest of two at full speed leaves one for its devices
		"unknown": {},
		"none":    {},
	} {
		if got := e.limitsOf(vm.VMRecord{VMM: name, Spec: vm.Spec{VCPU: 2, MemoryMiB: 256}}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
