// Package firecracker is the vmm.Driver for Firecracker, in a jail by default: small, quick to start, and only where KVM
// is proven to run a guest.
//
// It launches, finds and ends processes and knows Firecracker's API, its configuration and its jailer. It must not decide
// about a VM's life, make disks or networks, or know what the guest agent says.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/guest"
	"banger/internal/host/kvm"
	"banger/internal/host/proc"
	"banger/internal/vmm"
)

// Config is what a Driver needs to be made.
type Config struct {
	// Locate tells the programs: absolute paths, or names to be found in PATH. It is asked anew each time, so that what is
	// installed meanwhile counts. Nil = "firecracker" and "jailer" in PATH.
	Locate func() (firecracker, jailer string, err error)
	// NoJail runs VMMs as the daemon's own user, outside any jail.
	NoJail   bool
	StateDir string // an existing directory for firecracker.json: what was found out in this boot of the host
	VMs      string // the directory below which VMs' directories, and their jails, are; empty = its mount is not looked at

	// ProveBoot tells what to boot as the proof. Nil: this driver is never usable.
	ProveBoot vmm.ProveBoot

	Host   kvm.Host     // zero = this one
	Logger *slog.Logger // nil = none
}

// Driver implements vmm.Driver.
type Driver struct {
	locate    func() (firecracker, jailer string, err error)
	noJail    bool
	stateFile string
	vms       string
	proveBoot vmm.ProveBoot
	host      kvm.Host
	log       *slog.Logger

	probing chan struct{} // holds one token: whoever has it may probe, and use found
	found   *findings     // nil = not probed yet
}

var _ vmm.Driver = (*Driver)(nil)

// New makes a driver. It does not look at the host yet.
func New(c Config) *Driver {
	d := &Driver{
		locate: c.Locate, noJail: c.NoJail, stateFile: filepath.Join(c.StateDir, "firecracker.json"), vms: c.VMs,
		proveBoot: c.ProveBoot, host: c.Host, log: c.Logger, probing: make(chan struct{}, 1),
	}
	if d.locate == nil {
		d.locate = func() (string, string, error) { return "firecracker", "jailer", nil }
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Name implements vmm.Driver.
func (d *Driver) Name() string { return "firecracker" }

// overhead is what a Firecracker needs beside its guest's memory, in MiB, and the page cache of its disks to breathe.
const overhead = 128

// jails says whether VMMs run in jails, as users of their own. Only root can make them.
func (d *Driver) jails() bool { return !d.noJail && os.Geteuid() == 0 }

// Features implements vmm.Driver.
func (d *Driver) Features() vmm.Features {
	return vmm.Features{Jails: d.jails(), Metrics: true, CID: guestCID, Overhead: overhead}
}

// AccelOf implements vmm.Acceler: there is nothing but KVM.
func (d *Driver) AccelOf(id proc.Identity) string {
	if !proc.Alive(id) {
		return ""
	}
	return "kvm"
}

// Find implements vmm.Driver. A process counts when it has this VM's id among its arguments, and either this API socket
// (the jailer that is about to become it: this VM's jail) among them too, as a process of our own user, or this VM's jail
// as its root directory, which only root could have given it. Anybody can give a process of theirs any command line. What
// the program is called says nothing: it is what config.toml names.
func (d *Driver) Find(_ context.Context, ref vmm.Ref) (proc.Identity, bool, error) {
	ids, err := proc.Find(func(args []string) bool { return named(args, ref) })
	if err != nil {
		return proc.Identity{}, false, fmt.Errorf("find the process of VM %s: %w", ref.ID, err)
	}
	for _, id := range ids {
		if d.serves(id, ref) && proc.Alive(id) {
			return id, true, nil
		}
	}
	return proc.Identity{}, false, nil
}

// named says whether a command line may be that of the VM's VMM, or of its jailer.
func named(args []string, ref vmm.Ref) bool { return valueOf(args, "--id") == string(ref.ID) }

// serves is the proof.
func (d *Driver) serves(id proc.Identity, ref vmm.Ref) bool {
	args, err := proc.Args(id.PID)
	if err != nil {
		return false
	}
	uid, err := proc.UID(id.PID)
	if err != nil {
		return false
	}
	if uid == os.Geteuid() && (valueOf(args, "--api-sock") == ref.APISock || valueOf(args, "--chroot-base-dir") == jailBase(ref)) {
		return true
	}
	// The name of its root directory is "/" in there; the directory itself is the proof.
	var is, want unix.Stat_t
	roots, _ := filepath.Glob(filepath.Join(jailBase(ref), "*", string(ref.ID), "root"))
	if unix.Stat(fmt.Sprintf("/proc/%d/root", id.PID), &is) != nil {
		return false
	}
	return slices.ContainsFunc(roots, func(root string) bool {
		return unix.Stat(root, &want) == nil && is.Dev == want.Dev && is.Ino == want.Ino
	})
}

// valueOf is what follows an option; empty when it is not there.
func valueOf(args []string, option string) string {
	if i := slices.Index(args, option); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// DialAgent implements vmm.Driver: each call is a connection.
func (d *Driver) DialAgent(ctx context.Context, ref vmm.Ref) (net.Conn, error) {
	return dialVsock(ctx, ref.AgentSock, guest.VSockPort)
}

// Multiplexed implements vmm.Driver.
func (d *Driver) Multiplexed() bool { return false }

// Quit implements vmm.Driver. The API has no word for it but the guest's help; SIGTERM ends a Firecracker at once.
func (d *Driver) Quit(ctx context.Context, ref vmm.Ref) error {
	id, ok, err := d.Find(ctx, ref)
	if err != nil || !ok {
		return err
	}
	err = act.Do(ctx, "process.end", func() error { return proc.Signal(id, unix.SIGTERM) })
	if err != nil && !errors.Is(err, proc.ErrGone) {
		return fmt.Errorf("quit: %w", err)
	}
	return nil
}

// Paused implements vmm.Pauser.
func (d *Driver) Paused(ctx context.Context, ref vmm.Ref) (bool, error) {
	info, err := NewAPI(ref.APISock).Info(ctx)
	return info.State == StatePaused, err
}

// Runs implements vmm.Pauser.
func (d *Driver) Runs(ctx context.Context, ref vmm.Ref) (bool, error) {
	info, err := NewAPI(ref.APISock).Info(ctx)
	return info.State == StateRunning, err
}

// Pause implements vmm.Pauser.
func (d *Driver) Pause(ctx context.Context, ref vmm.Ref) error {
	return act.Do(ctx, "machine.stop", func() error { return NewAPI(ref.APISock).Pause(ctx) })
}

// Resume implements vmm.Pauser.
func (d *Driver) Resume(ctx context.Context, ref vmm.Ref) error {
	return act.Do(ctx, "machine.cont", func() error { return NewAPI(ref.APISock).Resume(ctx) })
}
