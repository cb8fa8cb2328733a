// Package engine brings VMs to what they should be. One worker goroutine per VM looks, asks internal/plan for the next
// step, acts and records; its first round after a start of the daemon is the crash recovery. The worker is the only
// writer of its VM's run-time state and handles. API handlers change intent in the database and wake the worker.
//
// The engine names no concrete driver and holds no lock over I/O.
package engine

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"banger/internal/disk"
	"banger/internal/handles"
	"banger/internal/host/cgroup"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/paths"
	"banger/internal/publish"
	"banger/internal/store"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Images is what the engine needs of internal/image.
type Images interface {
	// Known refuses a name that Use could only refuse, without making anything.
	Known(ctx context.Context, name string) error
	// Use returns the image of that name, building it when it is a known recipe and missing. Until release it is not
	// deleted; afterwards not while a VM's row names its digest.
	Use(ctx context.Context, name string, report vm.Report) (i vm.Image, release func(), err error)
	// RootPath is the shared, never written ext4 file of an image.
	RootPath(digest string) string
	// BuildBase makes sure of what a script is run on to build an image.
	BuildBase(ctx context.Context, o image.BuildOptions, script string, report vm.Report) (image.Base, error)
	// Adopt makes an image of a root disk, which fill writes to an empty file.
	Adopt(ctx context.Context, o image.AdoptOptions, fill func(ctx context.Context, root string) error, report vm.Report) (vm.Image, error)
	// Sweep removes an image that no name and no VM has any more.
	Sweep(ctx context.Context, digest string) error
}

// Kernels is what the engine needs of internal/kernel.
type Kernels interface {
	// Known refuses a name that Use could only refuse, without making anything.
	Known(ctx context.Context, name string) error
	// Use returns the kernel of that name, importing it when it is the default one and missing. Until release it is not
	// deleted; afterwards not while a VM's row names its digest.
	Use(ctx context.Context, name string, report vm.Report) (k vm.Kernel, release func(), err error)
	// Boot returns the files that boot a kernel.
	Boot(ctx context.Context, digest string) (kernel.Boot, error)
	// Sweep removes a kernel that no name and no VM has any more.
	Sweep(ctx context.Context, digest string) error
}

// Cgroups gives each VM a cgroup of its own: cgroup.Tree, whose contract it is.
type Cgroups interface {
	Ensure(ctx context.Context, id vm.ID, l cgroup.Limits) (dir string, limited bool, err error)
	Remove(ctx context.Context, id vm.ID) error
}

// Defaults fill what a CreateRequest leaves open.
type Defaults struct {
	VCPU      int
	MemoryMiB int64
	DiskSize  int64 // bytes
	Image     string
	Kernel    string
	VMM       string
	Disk      string
	Network   string
}

// Config wires an engine. All fields are needed, but for those that say what nil is.
type Config struct {
	Store     *store.Store
	Handles   *handles.Cache
	Paths     paths.Paths
	Images    Images
	Kernels   Kernels
	VMMs      []vmm.Driver // "auto" takes the first usable one
	Disks     []disk.Driver
	Networks  []network.Driver
	Processes vmm.Processes
	Cgroups   Cgroups // nil: VMs stay in the daemon's
	// WorkDisk makes a VM's work disk of that many bytes, if it is not there, and enlarges one that is smaller.
	WorkDisk func(ctx context.Context, path string, size int64) error
	Defaults Defaults
	UIDs     UIDs   // for VMMs in jails
	BootID   string // of the host
	Limits   Limits // of the host
	// Listen takes a port of the host; nil = publish.Listen.
	Listen func(ctx context.Context, p vm.Port) (publish.Socket, error)
	Log    *slog.Logger
	// GuardEvery is how often disks are looked at that do not survive a full file system; 0 = guardEvery.
	GuardEvery time.Duration

	stopWaits  stopWaits  // the defaults, but in tests
	pulseTimes pulseTimes // likewise
}

// UIDs is a range of users, and groups of the same numbers, that nobody else on the host is, but VMs of other daemons: Begin
// is where this one begins in it.
type UIDs struct{ First, Count, Begin uint32 }

// Engine owns the workers. Make one with New, then Recover, and Close it at the end; VMs live on.
type Engine struct {
	Config
	events    *bus
	counts    counts
	published *publish.Publisher

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	workers map[vm.ID]*worker
	closed  bool

	applying chan struct{} // holds one token: whoever has it may apply what VMs share of a network

	choice sync.Mutex
	disks  map[string]chosenDisk // by VMM and wish: probing costs processes
}

// New makes an engine that does nothing yet. The workers have ctx's values; its end is not theirs.
func New(ctx context.Context, c Config) *Engine {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if c.Cgroups == nil {
		c.Cgroups = cgroup.Tree{}
	}
	c.stopWaits, c.pulseTimes, c.GuardEvery = defaultStopWaits, defaultPulseTimes, cmp.Or(c.GuardEvery, guardEvery)
	e := &Engine{Config: c, events: newBus(), counts: newCounts(), ctx: ctx, cancel: cancel, workers: map[vm.ID]*worker{}, disks: map[string]chosenDisk{}, applying: make(chan struct{}, 1)}
	e.published = publish.New(publish.Config{Listen: c.Listen, Log: c.Log, Changed: e.portChanged})
	return e
}

// Close stops the workers where they are. Machines go on; a half-done start or removal is taken up by the next daemon.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
	e.published.Close()
	e.events.close()
}

// Recover reads all records and gives each VM that is not at rest its first round: adopt, demote or go on removing.
// It returns when every first round is over or ctx ends; what takes longer goes on in the workers.
func (e *Engine) Recover(ctx context.Context) error {
	records, err := e.Store.SharedVMs(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, d := range e.Networks { // before any VM is looked at: what they share is to be there for each
		if err := e.applyNetwork(ctx, d, ""); err != nil {
			e.Log.Warn("VMs may be without their network", "error", err)
		}
	}
	e.wg.Go(func() { e.guardDisks(e.ctx) })
	var first []<-chan struct{}
	for _, r := range records {
		if e.atRest(r) {
			continue
		}
		if w := e.worker(r.ID, true); w != nil {
			first = append(first, w.recovered)
		}
	}
	for _, c := range first {
		select {
		case <-c:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// atRest says without asking the OS that a VM needs no look: it should not run, and nothing says that anything is left.
func (e *Engine) atRest(r vm.VMRecord) bool {
	r.Runtime = e.complete(r)
	return stopped(r) && !r.Runtime.ResetDue && !r.Spec.AutoRemove && handles.Read(r.ID, r.Runtime.VMDir).IsZero() && !exists(e.Paths.VMRun(r.ID))
}

// worker returns the VM's worker, starting one when there is none; nil once the engine is closed.
func (e *Engine) worker(id vm.ID, recovering bool) *worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w, ok := e.workers[id]; ok {
		return w
	}
	if e.closed {
		return nil
	}
	w := newWorker(e, id, recovering)
	e.workers[id] = w
	e.wg.Go(func() { w.run(e.ctx) })
	return w
}

// background runs f beside everything else until it ends, with a context that ends with the engine; false once that is
// closed.
func (e *Engine) background(f func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.wg.Go(func() { f(e.ctx) })
	}
	return !e.closed
}

// known returns the VM's worker if it has one.
func (e *Engine) known(id vm.ID) *worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.workers[id]
}

// Resting says whether no worker has anything to do before something changes, or a wait is over.
func (e *Engine) Resting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.workers {
		if w.pending.Load() != 0 {
			return false
		}
	}
	return true
}

// busy says that some VM is, or was since the daemon's start, not at rest.
func (e *Engine) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.workers) > 0
}

// retire forgets a worker whose VM is gone.
func (e *Engine) retire(w *worker) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.workers[w.id] == w {
		delete(e.workers, w.id)
	}
}

func (e *Engine) vmm(name string) (vmm.Driver, error) {
	for _, d := range e.VMMs {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, vm.Errorf(vm.CodeMissing, "this banger has no VMM driver %q", name)
}

func (e *Engine) disk(name string) (disk.Driver, error) {
	for _, d := range e.Disks {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, vm.Errorf(vm.CodeMissing, "this banger has no disk driver %q", name)
}

func (e *Engine) network(name string) (network.Driver, error) {
	for _, d := range e.Networks {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, vm.Errorf(vm.CodeMissing, "this banger has no network driver %q", name)
}

// errStopping answers requests that come while the daemon ends.
var errStopping = vm.Errorf(vm.CodeUnavailable, "the daemon is stopping").WithHint("run the command again")

// readyTimeout is how long a start may take before it is given up: a machine under emulation on a busy host is slow.
const readyTimeout = 3 * time.Minute

// isNotFound says that a record is absent: for events about things that are gone, that means done.
func isNotFound(err error) bool { return err != nil && vm.CodeOf(err) == vm.CodeNotFound }
