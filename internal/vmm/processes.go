package vmm

import (
	"context"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
)

// Processes is how the engine looks at and ends the processes that drivers launched. It is apart from Driver because
// a process is the host's whatever VMM runs in it, and so that tests can put processes in memory (vmm/fake).
type Processes interface {
	// Alive says whether exactly this process still runs; a zombie does not.
	Alive(id proc.Identity) bool

	// Signal sends sig to exactly this process; proc.ErrGone when it is not there.
	Signal(id proc.Identity, sig unix.Signal) error

	// Usage is what exactly this process has used and holds; proc.ErrGone when it is not there.
	Usage(id proc.Identity) (proc.Usage, error)

	// Wait returns nil when the process has ended, at once when it is not there, else ctx's error.
	Wait(ctx context.Context, id proc.Identity) error
}

// HostProcesses are the real ones.
type HostProcesses struct{}

var _ Processes = HostProcesses{}

// Alive implements Processes.
func (HostProcesses) Alive(id proc.Identity) bool { return proc.Alive(id) }

// Signal implements Processes.
func (HostProcesses) Signal(id proc.Identity, sig unix.Signal) error { return proc.Signal(id, sig) }

// Usage implements Processes.
func (HostProcesses) Usage(id proc.Identity) (proc.Usage, error) { return proc.UsageOf(id) }

// Wait implements Processes.
func (HostProcesses) Wait(ctx context.Context, id proc.Identity) error { return proc.Wait(ctx, id) }
