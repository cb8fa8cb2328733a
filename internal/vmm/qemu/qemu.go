// Package qemu is the vmm.Driver for QEMU's microvm machine: under KVM where that is proven to run a guest, else under
// software emulation (TCG), which runs anywhere.
//
// It launches, finds and ends processes and knows QEMU's arguments. It must not decide about a VM's life, make disks or
// networks, or know what the guest agent says.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/kvm"
	"banger/internal/host/proc"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu/qmp"
)

// Config is what a Driver needs to be made.
type Config struct {
	Binary   string // QEMU's program; empty = qemu-system-x86_64 in PATH
	StateDir string // an existing directory for probe.json: what was found out in this boot of the host

	// ProveBoot is called at most once, where KVM
	// looks usable and is not proven yet. Nil: KVM is never used.
	ProveBoot vmm.ProveBoot

	Logger *slog.Logger // nil = none
}

// Driver implements vmm.Driver.
type Driver struct {
	binary    string
	stateFile string
	proveBoot vmm.ProveBoot
	log       *slog.Logger
	host      kvm.Host // where KVM is looked for

	probing chan struct{} // holds one token: whoever has it may probe, and use found
	found   *findings     // nil = not probed yet
}

var _ vmm.Driver = (*Driver)(nil)

// New makes a driver. It does not look at the host yet.
func New(c Config) *Driver {
	d := &Driver{
		binary:    c.Binary,
		stateFile: filepath.Join(c.StateDir, "probe.json"),
		proveBoot: c.ProveBoot,
		log:       c.Logger,
		probing:   make(chan struct{}, 1),
	}
	if d.binary == "" {
		d.binary = "qemu-system-x86_64"
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Name implements vmm.Driver.
func (d *Driver) Name() string { return "qemu" }

// Features implements vmm.Driver. What emulation takes is not known beforehand.
func (d *Driver) Features() vmm.Features { return vmm.Features{} }

// AccelOf implements vmm.Acceler, from the command line.
func (d *Driver) AccelOf(id proc.Identity) string {
	args, err := proc.Args(id.PID)
	i := slices.Index(args, "-accel")
	if err != nil || i < 0 || i+1 >= len(args) || !proc.Alive(id) {
		return ""
	}
	accel, _, _ := strings.Cut(args[i+1], ",")
	return accel
}

// Find implements vmm.Driver. A process counts when its program is a QEMU, the API socket's argument is whole, and it
// runs as this daemon's user: anybody can give a process of theirs any command line. Were there several, which Launch prevents, the one with the highest start time would be it.
func (d *Driver) Find(_ context.Context, ref vmm.Ref) (proc.Identity, bool, error) {
	ids, err := proc.Find(func(args []string) bool { return serves(args, ref.APISock) })
	if err != nil {
		return proc.Identity{}, false, fmt.Errorf("find the process of %s: %w", ref.APISock, err)
	}
	ids = slices.DeleteFunc(ids, func(id proc.Identity) bool {
		uid, err := proc.UID(id.PID)
		return err != nil || uid != os.Geteuid()
	})
	if len(ids) == 0 {
		return proc.Identity{}, false, nil
	}
	return slices.MaxFunc(ids, func(a, b proc.Identity) int { return int(int64(a.StartTime - b.StartTime)) }), true, nil
}

// serves says whether a command line is that of the QEMU with this API socket.
func serves(args []string, apiSock string) bool {
	if len(args) == 0 || !strings.HasPrefix(filepath.Base(args[0]), "qemu-system") {
		return false
	}
	i := slices.Index(args, "-qmp")
	return i >= 0 && i+1 < len(args) && args[i+1] == qmpArgument(apiSock)
}

// DialAgent implements vmm.Driver. The port takes one connection at a time; a second one waits for the first's end.
func (d *Driver) DialAgent(ctx context.Context, ref vmm.Ref) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", ref.AgentSock)
	if err != nil {
		return nil, fmt.Errorf("connect to guest agent: %w", err)
	}
	return conn, nil
}

// Multiplexed implements vmm.Driver: a virtio-serial port is one stream.
func (d *Driver) Multiplexed() bool { return true }

// Remove implements vmm.Driver: a QEMU leaves nothing but its sockets.
func (d *Driver) Remove(context.Context, vmm.Ref) error { return nil }

// Quit implements vmm.Driver.
func (d *Driver) Quit(ctx context.Context, ref vmm.Ref) error {
	c, err := qmp.Dial(ctx, ref.APISock)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, qmp.ErrClosed) {
		return d.terminate(ctx, ref)
	}
	if err != nil {
		return fmt.Errorf("quit: %w", err)
	}
	defer func() { _ = c.Close() }()
	err = act.Do(ctx, "process.quit", func() error { return c.Execute(ctx, "quit", nil, nil) })
	if err != nil && !errors.Is(err, qmp.ErrClosed) { // closed: it went
		return fmt.Errorf("quit: %w", err)
	}
	return nil
}

var _ vmm.Halter = (*Driver)(nil)

// Paused implements vmm.Pauser. A machine that QEMU itself halted, because the host's disk is full, is in another state.
func (d *Driver) Paused(ctx context.Context, ref vmm.Ref) (bool, error) {
	status, err := d.status(ctx, ref)
	return status == "paused", err
}

// Runs implements vmm.Pauser.
func (d *Driver) Runs(ctx context.Context, ref vmm.Ref) (bool, error) {
	status, err := d.status(ctx, ref)
	return status == "running", err
}

// OutOfSpace implements vmm.Halter. Of the errors of disks QEMU halts a machine for this one alone (werror=enospc, its default);
// every other is the guest's to see.
func (d *Driver) OutOfSpace(ctx context.Context, ref vmm.Ref) (bool, error) {
	status, err := d.status(ctx, ref)
	return status == "io-error", err
}

// status is QEMU's word for what its machine does.
func (d *Driver) status(ctx context.Context, ref vmm.Ref) (string, error) {
	c, err := qmp.Dial(ctx, ref.APISock)
	if err != nil {
		return "", fmt.Errorf("ask qemu for its status: %w", err)
	}
	defer func() { _ = c.Close() }()
	var status struct {
		Status string `json:"status"`
	}
	if err := c.Execute(ctx, "query-status", nil, &status); err != nil {
		return "", fmt.Errorf("ask qemu for its status: %w", err)
	}
	return status.Status, nil
}

// Pause implements vmm.Pauser.
func (d *Driver) Pause(ctx context.Context, ref vmm.Ref) error { return d.execute(ctx, ref, "stop") }

// Resume implements vmm.Pauser. It is also what sets a machine going again that QEMU halted because the host's disk was
// full; what the guest had been writing is written then.
func (d *Driver) Resume(ctx context.Context, ref vmm.Ref) error { return d.execute(ctx, ref, "cont") }

func (d *Driver) execute(ctx context.Context, ref vmm.Ref, command string) error {
	c, err := qmp.Dial(ctx, ref.APISock)
	if err != nil {
		return fmt.Errorf("tell qemu to %s: %w", command, err)
	}
	defer func() { _ = c.Close() }()
	if err := act.Do(ctx, "machine."+command, func() error { return c.Execute(ctx, command, nil, nil) }); err != nil {
		return fmt.Errorf("tell qemu to %s: %w", command, err)
	}
	return nil
}

// terminate ends a process that does not serve its socket: it is about to, or the socket was removed under it.
func (d *Driver) terminate(ctx context.Context, ref vmm.Ref) error {
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
