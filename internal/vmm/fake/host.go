// Package fake is a strict VMM for tests: machines in memory, each with a process identity, a guest agent that answers
// in this process, and socket and console files as the real thing leaves them. It refuses what a real VMM or kernel
// would refuse (a socket or a writable disk in use, a missing directory), so that a test of the engine fails where the
// host would.
//
// The state is a Host; drivers come and go over it as daemons do over a real one.
package fake

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// firstPID is above every pid a Linux host can have (2^22), so that no slip of a test ever signals a real process.
const firstPID = 10_000_000

// Host is the kernel under fake VMMs. It implements vmm.Processes. Safe for several goroutines.
type Host struct {
	mu       sync.Mutex
	boot     int
	clock    uint64 // ticks since boot; grows with each process
	nextPID  int
	running  map[int]*process
	rules    Rules
	launched []vmm.Config
}

var _ vmm.Processes = (*Host)(nil)

type process struct {
	id     proc.Identity
	config *vmm.Config // nil: something else than a VMM
	guest  *agent
	gone   chan struct{} // closed at the end

	// Guarded by Host.mu, for a process that was sent SIGSTOP:
	stopped   chan struct{} // closed when it goes on; nil = it runs
	terminate bool          // SIGTERM came meanwhile

	dying   chan struct{} // closed when somebody waits for the end of what was killed; nil = it was not; guarded by Host.mu
	awaited bool

	paused chan struct{} // closed when the machine goes on; nil = it runs; guarded by Host.mu
	full   bool          // nobody paused it: a write found no room; guarded by Host.mu

	exited chan string // for the launcher
}

// Rules bend what machines do. Every field may be nil. They are called without locks held, from any goroutine.
type Rules struct {
	Probe     func() vmm.Probe                           // nil: usable, by "tcg"
	Launch    func(vmm.Config) error                     // an error refuses the launch
	Ready     func(vmm.Config) <-chan struct{}           // the agent answers nothing before it is closed; nil channel: never
	Configure func(vmm.Config, GuestConfigure) error     // an error is answered with status 500
	Hello     func(vmm.Config) error                     // an error is answered with status 500
	Sync      func(vmm.Config)                           // the answer waits for its return
	PowerOff  func(vmm.Config) bool                      // false: the guest ignores it
	Dead      func(vmm.Config) bool                      // the guest answers nothing new any more; what was begun goes on without a word
	Ending    func(vmm.Config) string                    // of guest.Hello
	Quit      func(vmm.Config) bool                      // false: the VMM ignores it
	Terminate func(vmm.Config) bool                      // false: the VMM ignores SIGTERM
	Kill      func(vmm.Config) <-chan struct{}           // SIGKILL takes effect when it is closed; nil channel: at once
	Linger    bool                                       // what a killed VMM holds is free when somebody waited for its end, or a moment later; Find sees it no more
	Hidden    func(vmm.Config) bool                      // Find does not see it, as one that is between its fork and its exec
	Put       func(vmm.Config)                           // told of files that are to be unpacked; the answer comes when all have been read
	Exec      func(ctx context.Context, e Exec) ExecExit // nil: writes its arguments to stdout and exits with 0
}

// NewHost is a host just booted.
func NewHost() *Host {
	return &Host{boot: 1, nextPID: firstPID, running: map[int]*process{}}
}

// Rule replaces the rules, for machines that run as well.
func (h *Host) Rule(r Rules) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rules = r
}

func (h *Host) currentRules() Rules {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rules
}

// BootID is the identity of the current boot.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bootID()
}

func (h *Host) bootID() string { return fmt.Sprintf("fake-boot-%d", h.boot) }

// Running lists the live VMM processes in the order of their launch.
func (h *Host) Running() []proc.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []proc.Identity
	for _, p := range h.running {
		if p.config != nil {
			ids = append(ids, p.id)
		}
	}
	slices.SortFunc(ids, func(a, b proc.Identity) int { return a.PID - b.PID })
	return ids
}

// Launched lists the configurations of all launches that succeeded, oldest first.
func (h *Host) Launched() []vmm.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.launched)
}

// Clone is the same host once more: the same processes with the same guests, which go their own way from now on. Nobody
// in it has launched them.
func (h *Host) Clone() *Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &Host{boot: h.boot, clock: h.clock, nextPID: h.nextPID, running: map[int]*process{}, rules: h.rules, launched: slices.Clone(h.launched)}
	for pid, p := range h.running {
		if p.dying != nil {
			continue // it has had its time
		}
		q := &process{id: p.id, config: p.config, gone: make(chan struct{}), exited: make(chan string, 1)}
		if p.guest != nil {
			q.guest = newAgent(c, q)
			p.guest.mu.Lock()
			q.guest.configured = p.guest.configured
			p.guest.mu.Unlock()
		}
		if p.paused != nil {
			q.paused, q.full = make(chan struct{}), p.full
		}
		c.running[pid] = q
	}
	return c
}

// Machines lists the configurations of the live VMMs, by process.
func (h *Host) Machines() map[proc.Identity]vmm.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[proc.Identity]vmm.Config{}
	for _, p := range h.running {
		if p.config != nil {
			all[p.id] = *p.config
		}
	}
	return all
}

// ProcessOf finds the live VMM of a VM.
func (h *Host) ProcessOf(id vm.ID) (proc.Identity, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.running {
		if p.config != nil && p.config.ID == id {
			return p.id, true
		}
	}
	return proc.Identity{}, false
}

// Reboot ends everything at once and begins a new boot. Files stay, as on a disk.
func (h *Host) Reboot() {
	h.mu.Lock()
	ended := h.running
	h.running = map[int]*process{}
	h.boot++
	h.clock = 0
	h.mu.Unlock()
	for _, p := range ended {
		p.end("host reboot")
	}
}

// Reuse starts an unrelated process under the pid of one that has ended.
func (h *Host) Reuse(pid int) (proc.Identity, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running[pid] != nil {
		return proc.Identity{}, fmt.Errorf("process %d still runs", pid)
	}
	return h.start(pid, nil).id, nil
}

// Exit ends a process from within, as a VMM's crash or a guest's triple fault does, without a word.
func (h *Host) Exit(id proc.Identity, how string) error {
	p := h.lookup(id)
	if p == nil {
		return proc.ErrGone
	}
	h.end(p, how)
	return nil
}

// PowerOff ends a process as a guest's own power-off does: its kernel says so on the console.
func (h *Host) PowerOff(id proc.Identity) error {
	p := h.lookup(id)
	if p == nil {
		return proc.ErrGone
	}
	h.farewell(p)
	h.end(p, "exit status 0")
	return nil
}

// farewell writes on p's console what a kernel says last. A console that somebody removed is none to write on.
func (h *Host) farewell(p *process) {
	f, err := os.OpenFile(p.config.Console, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString("[    9.999999] reboot: Power down\n")
	_ = f.Close()
}

// start needs the lock.
func (h *Host) start(pid int, c *vmm.Config) *process {
	h.clock++
	p := &process{
		id:     proc.Identity{PID: pid, StartTime: h.clock, BootID: h.bootID()},
		config: c,
		gone:   make(chan struct{}),
		exited: make(chan string, 1),
	}
	h.running[pid] = p
	return p
}

func (h *Host) lookup(id proc.Identity) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.running[id.PID]; p != nil && p.id == id {
		return p
	}
	return nil
}

// end takes p out of the host, once.
func (h *Host) end(p *process, how string) {
	h.mu.Lock()
	live := h.running[p.id.PID] == p
	if live && p.config != nil && !strings.HasPrefix(how, "signal") { // an orderly end removes the sockets, while it still lives
		_ = os.Remove(p.config.APISock)
		_ = os.Remove(p.config.AgentSock)
	}
	if live {
		delete(h.running, p.id.PID)
	}
	h.mu.Unlock()
	if live {
		p.end(how)
	}
}

func (p *process) end(how string) {
	if p.guest != nil {
		p.guest.close()
	}
	p.exited <- how
	close(p.gone)
}

// Alive implements vmm.Processes.
func (h *Host) Alive(id proc.Identity) bool { return h.lookup(id) != nil }

// Usage implements vmm.Processes: a second, and 64 MiB, for each process.
func (h *Host) Usage(id proc.Identity) (proc.Usage, error) {
	if h.lookup(id) == nil {
		return proc.Usage{}, proc.ErrGone
	}
	return proc.Usage{CPU: time.Second, Resident: 64 << 20}, nil
}

// Signal implements vmm.Processes. SIGTERM ends a VMM orderly, SIGSTOP halts it until SIGCONT or SIGKILL, signal 0 only
// asks, every other one kills.
func (h *Host) Signal(id proc.Identity, sig unix.Signal) error {
	p := h.lookup(id)
	if p == nil {
		return proc.ErrGone
	}
	switch sig {
	case 0:
	case unix.SIGSTOP:
		h.mu.Lock()
		if p.stopped == nil {
			p.stopped = make(chan struct{})
		}
		h.mu.Unlock()
	case unix.SIGCONT:
		h.mu.Lock()
		if p.stopped != nil {
			close(p.stopped)
		}
		terminate := p.terminate
		p.stopped, p.terminate = nil, false
		h.mu.Unlock()
		if terminate {
			return h.Signal(id, unix.SIGTERM)
		}
	case unix.SIGTERM:
		h.mu.Lock()
		p.terminate = p.stopped != nil
		held := p.terminate
		h.mu.Unlock()
		if held {
			return nil
		}
		if ok := h.currentRules().Terminate; p.config != nil && ok != nil && !ok(*p.config) {
			return nil
		}
		h.end(p, "exit status 0")
	case unix.SIGKILL:
		h.kill(p)
	default:
		h.end(p, "signal: "+sig.String())
	}
	return nil
}

// kill ends p as soon as nothing holds it in the kernel.
func (h *Host) kill(p *process) {
	if kill := h.currentRules().Kill; p.config != nil && kill != nil {
		if held := kill(*p.config); held != nil {
			go func() { <-held; h.end(p, "signal: killed") }()
			return
		}
	}
	h.mu.Lock()
	if linger := h.rules.Linger; p.config != nil && linger {
		h.linger(p)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	h.end(p, "signal: killed")
}

// Wait implements vmm.Processes.
func (h *Host) Wait(ctx context.Context, id proc.Identity) error {
	p := h.lookup(id)
	if p == nil {
		return nil
	}
	h.mu.Lock()
	if p.dying != nil && !p.awaited {
		p.awaited = true
		close(p.dying)
	}
	h.mu.Unlock()
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
