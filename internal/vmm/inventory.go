package vmm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Machine is a live process that looks like a machine of a driver.
type Machine struct {
	ID      vm.ID
	Process proc.Identity
	Program string
	Proof   string // why it is a machine of this root; empty when that cannot be proven
	Doubt   string // then: why not
}

// ProcessKind is a driver's processes as a kind of the inventory. list must not take anybody's process for proven by its
// command line alone: everybody chooses their own.
func ProcessKind(list func(ctx context.Context) ([]Machine, error)) inventory.Kind {
	return processKind{list}
}

type processKind struct {
	list func(ctx context.Context) ([]Machine, error)
}

func (processKind) Rank() inventory.Rank { return inventory.Processes }

func (k processKind) List(ctx context.Context) ([]inventory.Object, error) {
	machines, err := k.list(ctx)
	var out []inventory.Object
	for _, m := range machines {
		out = append(out, m.object())
	}
	return out, err
}

func (m Machine) object() inventory.Object {
	return inventory.Object{
		Kind: "process", Name: strconv.Itoa(m.Process.PID), More: m.Program, VM: m.ID, Proof: m.Proof, Doubt: m.Doubt,
		Run: true, Made: proc.Started(m.Process),
	}
}

// endWithin is how long the kernel may take to end a killed process.
const endWithin = 10 * time.Second

// Remove kills exactly the process that is proven now, and waits for its end: what it holds is free only then.
func (k processKind) Remove(ctx context.Context, o inventory.Object) error {
	machines, err := k.list(ctx)
	for _, m := range machines {
		if now := m.object(); m.Proof != "" && now.Name == o.Name && now.VM == o.VM && now.Made.Equal(o.Made) {
			return kill(ctx, m.Process)
		}
	}
	return err
}

func kill(ctx context.Context, process proc.Identity) error {
	err := act.Do(ctx, "process.kill", func() error { return proc.Signal(process, unix.SIGKILL) })
	if err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	if err := proc.Wait(ctx, process); err != nil {
		return fmt.Errorf("wait for the end of process %d: %w", process.PID, err)
	}
	return nil
}
