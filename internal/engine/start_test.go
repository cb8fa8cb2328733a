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
	for _, c := range []struct {
		vmm       string
		memoryMiB int64
		want      cgroup.Limits
	}{
		{"known", 256, cgroup.Limits{Memory: (256 + 32 + 2) << 20, CPUs: 3}}, // a guest of two at full speed leaves one for its devices
		{"known", 64 << 10, cgroup.Limits{Memory: (64<<10 + 32 + 512) << 20, CPUs: 3}},
		{"known", 64, cgroup.Limits{Memory: (64+32)<<20 + 512<<10, CPUs: 3}},
		{"unknown", 256, cgroup.Limits{}},
		{"none", 256, cgroup.Limits{}},
	} {
		if got := e.limitsOf(vm.VMRecord{VMM: c.vmm, Spec: vm.Spec{VCPU: 2, MemoryMiB: c.memoryMiB}}); got != c.want {
			t.Errorf("%s, %d MiB: %+v, want %+v", c.vmm, c.memoryMiB, got, c.want)
		}
	}
}
