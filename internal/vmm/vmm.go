// Package vmm is the seam to virtual machine monitors: a Driver starts, finds and reaches machines of one kind.
// Drivers decide nothing about a VM's life; internal/engine does. Drivers never import each other.
package vmm

import (
	"context"
	"net"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

// Config is all a driver needs to launch one machine. Plain data, paths absolute.
type Config struct {
	ID        vm.ID
	Name      string
	Dir       string // the VM's own directory, on the file system of its disks; the driver may keep things of its own there
	UID       int    // user and group the VMM runs as, where the driver puts it into a jail; 0 = the daemon's
	VCPU      int
	MemoryMiB int64
	Kernel    string   // uncompressed ELF vmlinux
	Initramfs string   // uncompressed cpio around banger-guest
	Args      []string // kernel parameters for the guest (banger.*, quiet …); the driver adds its own (console, clock, reboot, disks)
	Init      string   // path of the image's init to hand PID 1 to; empty: banger-guest stays PID 1
	Root      Disk
	Work      *Disk // nil = none
	Modules   *Disk // nil = none
	NIC       *NIC  // nil = none
	APISock   string
	AgentSock string
	Console   string // file the guest's console is appended to
	Log       string // file for the VMM's own words
	Metrics   string // file for the VMM's metrics, where the driver has some; empty = none
	Cgroup    string // cgroup v2 directory to start the process in; empty = the daemon's
}

// Ref is what names the machine.
func (c Config) Ref() Ref {
	return Ref{ID: c.ID, Dir: c.Dir, APISock: c.APISock, AgentSock: c.AgentSock}
}

// Disk is one block device of the guest.
type Disk struct {
	Path     string
	Format   string // "raw" or "qcow2"
	ReadOnly bool
	Block    bool // Path is a block device
}

// NIC is the guest's network interface.
type NIC struct {
	User bool   // the VMM's own user-mode network
	Tap  string // or an existing tap device
	MAC  string
}

// Probe is what a driver found out about itself on this host.
type Probe struct {
	Usable  bool   `json:"usable"`
	Pending bool   `json:"pending,omitempty"` // not usable yet: it takes a kernel to find out, and there is none
	Binary  string `json:"binary,omitempty"`
	Version string `json:"version,omitempty"`
	Accel   string `json:"accel,omitempty"` // "kvm" or "tcg"
	Why     string `json:"why"`             // a sentence for people: why this acceleration, or why not usable
	Hint    string `json:"hint,omitempty"`  // what makes it usable or faster
	Limit   string `json:"limit,omitempty"` // what guests lack since this version is old
}

// Speed says, for people, how fast to expect a machine that runs by "kvm" or "tcg": the end of a sentence.
func Speed(accel string) string {
	if accel == "kvm" {
		return "at nearly the speed of this machine"
	}
	return "about ten times slower than this machine"
}

// Auto is what a VM gets that asks for neither VMM nor network.
type Auto struct {
	VMM, Network string // names of drivers
	Pending      bool   // the VMM still has to show, once there is a kernel, that it runs guests
	Passed       error  // why a better VMM that could be used is passed over: "not firecracker: …"; nil = none is
}

// Acceler is a Driver that can tell how a machine it launched runs.
type Acceler interface {
	// AccelOf is "kvm", "tcg" or, when the process is not there, empty.
	AccelOf(id proc.Identity) string
}

// Jailer is a Driver that can tell whether a machine it launched is in a jail: the configuration may have changed since.
type Jailer interface {
	// Jailed is true, too, when the process is not there.
	Jailed(id proc.Identity) (bool, error)
}

// Features are what a driver's machines have.
type Features struct {
	Jails    bool   // each VMM runs as a user of its own, Config.UID
	Metrics  bool   // the VMM writes Config.Metrics
	CID      uint32 // the guest's vsock address; 0 = it has no vsock
	Overhead int64  // MiB the VMM needs beside a guest's memory and its page tables; 0 = unknown, so that no limit can be set
}

// Pauser is a Driver whose machines can be halted and go on. Doing either twice is success.
type Pauser interface {
	// Paused asks the VMM whether its machine was halted by Pause, by whatever daemon.
	Paused(ctx context.Context, ref Ref) (bool, error)
	// Runs asks the VMM whether its machine runs: one that it halted by itself, because the host's disk is full, say, does not.
	Runs(ctx context.Context, ref Ref) (bool, error)
	Pause(ctx context.Context, ref Ref) error
	Resume(ctx context.Context, ref Ref) error
}

// Halter is a Pauser whose VMM halts its machine when a write of the guest's finds no room on the host's file system. The guest is
// not told: what it had been writing is written when Resume sets it going again.
type Halter interface {
	Pauser
	// OutOfSpace asks the VMM whether it halted its machine for that, and nobody has set it going since.
	OutOfSpace(ctx context.Context, ref Ref) (bool, error)
}

// Driver is one kind of VMM. Every implementation passes vmmtest.Suite.
type Driver interface {
	// Name is the word users write after --vmm.
	Name() string

	// Features says what machines have, by configuration and not by a look at the host.
	Features() Features

	// Probe looks at the host; cheap after the first call of a boot.
	Probe(ctx context.Context) Probe

	// Launch starts the VMM detached: own session, nothing inherited, no Pdeathsig, not bound to ctx once it returned.
	// It returns when the process exists and the guest runs or is about to. APISock is an argument of the process from
	// its first instant, so Find sees it even when the caller dies before Launch returns. exited delivers one value
	// when the process has ended and been reaped, telling how ("exit status 0", "signal: killed").
	// On error nothing is left. Stale sockets of an earlier run are removed first.
	Launch(ctx context.Context, c Config) (id proc.Identity, exited <-chan string, err error)

	// Find looks for the machine's live process, by proof that it is that. ok is false when there is none.
	Find(ctx context.Context, ref Ref) (id proc.Identity, ok bool, err error)

	// DialAgent opens the channel to the guest agent behind AgentSock. For a stream-only channel (virtio-serial) it
	// is the raw port and Multiplexed is true: the caller runs one guest.Mux on it. Otherwise each call is a connection.
	DialAgent(ctx context.Context, ref Ref) (net.Conn, error)
	Multiplexed() bool

	// Quit asks the VMM to end at once through its API, without the guest's help. Not an error when it is gone.
	Quit(ctx context.Context, ref Ref) error

	// Remove clears away what Launch made beside the process and its sockets. Removing what is absent is success. It is
	// called when no process lives.
	Remove(ctx context.Context, ref Ref) error
}
