package engine

import (
	"fmt"
	"math/rand/v2"

	"banger/internal/vm"
)

// Limits are what the host can give at most.
type Limits struct {
	MemoryMiB int64                            // the host's RAM
	FreeBytes func(dir string) (uint64, error) // free space of the file system of dir
}

const (
	minFreeBytes  = 128 << 20
	nameAttempts  = 16
	nameSuffixMax = 1000
)

// validate refuses a spec that cannot be, before anything is made. The bounds are those of package vm, and the host.
func (l Limits) validate(s vm.Spec) error {
	switch {
	case s.VCPU < vm.MinVCPU || s.VCPU > vm.MaxVCPU:
		return vm.Errorf(vm.CodeInvalid, "%d vCPUs: a VM has %d to %d", s.VCPU, vm.MinVCPU, vm.MaxVCPU)
	case s.MemoryMiB < vm.MinMemory>>20:
		return vm.Errorf(vm.CodeInvalid, "%d MiB of memory: a VM needs at least %d MiB", s.MemoryMiB, vm.MinMemory>>20)
	case l.MemoryMiB > 0 && s.MemoryMiB > l.MemoryMiB:
		return vm.Errorf(vm.CodeInvalid, "%d MiB of memory: the host has %d MiB", s.MemoryMiB, l.MemoryMiB)
	case s.MemoryMiB > vm.MaxMemory>>20:
		return vm.Errorf(vm.CodeInvalid, "%d MiB of memory: a VM has at most %d MiB", s.MemoryMiB, vm.MaxMemory>>20)
	case s.DiskSize < vm.MinDisk:
		return vm.Errorf(vm.CodeInvalid, "work disk of %d bytes: it needs at least %d MiB", s.DiskSize, vm.MinDisk>>20)
	case s.DiskSize > vm.MaxDisk:
		return vm.Errorf(vm.CodeInvalid, "work disk of %d bytes: ext4 takes at most %d TiB", s.DiskSize, int64(vm.MaxDisk>>40))
	}
	p, err := vm.ParseRestart(s.Restart)
	if err != nil {
		return err
	}
	if s.AutoRemove && p.When != vm.RestartNo {
		return vm.Errorf(vm.CodeInvalid, "a VM that is removed with its command has no restart policy, and this one would have %q", s.Restart)
	}
	if err := vm.ValidatePorts(s.Ports); err != nil {
		return err
	}
	return vm.ValidateLabels(s.Labels)
}

// space refuses to begin on a full disk.
func (l Limits) space(dir string, need uint64) error {
	free, err := l.FreeBytes(dir)
	if err != nil {
		return fmt.Errorf("look for free space in %s: %w", dir, err)
	}
	if free < need {
		return vm.Errorf(vm.CodeNoSpace, "%d MiB free in %s, a VM needs at least %d MiB to begin", free>>20, dir, need>>20).
			WithHint("free some space: banger vm list shows VMs that can be deleted")
	}
	return nil
}

// randomName makes up a name people can tell apart and type; a later attempt is more likely to be free.
func randomName(attempt int) string {
	adjectives := []string{"amber", "bold", "brave", "brisk", "calm", "clever", "coral", "crisp", "eager", "fair", "fleet", "gentle",
		"glad", "golden", "happy", "hardy", "jolly", "keen", "kind", "light", "lively", "lucky", "mellow", "merry", "mild", "neat",
		"nimble", "noble", "plucky", "proud", "quick", "quiet", "rapid", "ready", "rosy", "sharp", "silver", "sleek", "smart",
		"snug", "solid", "spry", "steady", "sturdy", "sunny", "swift", "tidy", "vivid", "warm", "witty"}
	animals := []string{"badger", "bear", "beaver", "bison", "cat", "cobra", "crane", "crow", "deer", "dingo", "dove", "eagle",
		"falcon", "ferret", "finch", "fox", "gecko", "goose", "hare", "hawk", "heron", "ibex", "jackal", "koala", "lark", "lemur",
		"lion", "llama", "lynx", "marten", "mole", "moose", "newt", "ocelot", "otter", "owl", "panda", "puffin", "puma", "rabbit",
		"raven", "robin", "seal", "shrew", "stork", "swan", "tapir", "tiger", "toad", "wolf", "wren", "yak", "zebra"}
	name := adjectives[rand.IntN(len(adjectives))] + "-" + animals[rand.IntN(len(animals))]
	if attempt > 0 {
		name = fmt.Sprintf("%s-%d", name, rand.IntN(nameSuffixMax))
	}
	return name
}
