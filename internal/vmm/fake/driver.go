package fake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/vmm"
)

// Driver is a vmm.Driver over a Host. It holds no state: a new one over the same Host is a new daemon.
type Driver struct {
	host *Host
	name string
}

var (
	_ vmm.Driver = (*Driver)(nil)
	_ vmm.Halter = (*Driver)(nil)
)

// New makes a driver that users would call name.
func New(h *Host, name string) *Driver { return &Driver{host: h, name: name} }

// Name implements vmm.Driver.
func (d *Driver) Name() string { return d.name }

// Features implements vmm.Driver.
func (d *Driver) Features() vmm.Features { return vmm.Features{} }

// Probe implements vmm.Driver.
func (d *Driver) Probe(context.Context) vmm.Probe {
	if probe := d.host.currentRules().Probe; probe != nil {
		return probe()
	}
	return vmm.Probe{Usable: true, Binary: "/fake/vmm", Version: "1.0", Accel: "tcg", Why: "a fake runs anywhere"}
}

// Launch implements vmm.Driver.
func (d *Driver) Launch(ctx context.Context, c vmm.Config) (proc.Identity, <-chan string, error) {
	fail := func(err error) (proc.Identity, <-chan string, error) {
		return proc.Identity{}, nil, fmt.Errorf("launch %s: %w", c.ID, err)
	}
	if err := errors.Join(ctx.Err(), check(c)); err != nil {
		return fail(err)
	}
	if refuse := d.host.currentRules().Launch; refuse != nil {
		if err := refuse(c); err != nil {
			return fail(err)
		}
	}
	for _, sock := range []string{c.APISock, c.AgentSock} {
		err := act.Do(ctx, "socket.remove", func() error { return os.Remove(sock) })
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fail(fmt.Errorf("remove stale socket: %w", err))
		}
	}
	var p *process
	err := act.Do(ctx, "process", func() (err error) {
		p, err = d.host.launch(c)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return p.id, p.exited, nil
}

// launch starts the process, which makes its files.
func (h *Host) launch(c vmm.Config) (*process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.running {
		if p.config != nil {
			if err := clash(c, *p.config); err != nil {
				return nil, fmt.Errorf("%w of process %d", err, p.id.PID)
			}
		}
	}
	if err := makeFiles(c); err != nil {
		_, _ = os.Remove(c.APISock), os.Remove(c.AgentSock)
		return nil, err
	}
	h.nextPID++
	p := h.start(h.nextPID, &c)
	p.guest = newAgent(h, p)
	h.launched = append(h.launched, c)
	return p, nil
}

// check refuses what no VMM could start with.
func check(c vmm.Config) error {
	var errs []error
	for what, path := range map[string]string{
		"kernel": c.Kernel, "initramfs": c.Initramfs, "root disk": c.Root.Path,
		"API socket": c.APISock, "agent socket": c.AgentSock, "console": c.Console, "log": c.Log,
	} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("path of %s %q is not absolute", what, path))
		}
	}
	if c.ID == "" || c.VCPU < 1 || c.MemoryMiB < 1 {
		errs = append(errs, fmt.Errorf("id %q, %d vCPUs and %d MiB make no machine", c.ID, c.VCPU, c.MemoryMiB))
	}
	for _, disk := range disks(c) {
		if disk.Format != "raw" && disk.Format != "qcow2" {
			errs = append(errs, fmt.Errorf("disk %s has format %q", disk.Path, disk.Format))
		}
	}
	return errors.Join(errs...)
}

func disks(c vmm.Config) []vmm.Disk {
	all := []vmm.Disk{c.Root}
	for _, d := range []*vmm.Disk{c.Work, c.Modules} {
		if d != nil {
			all = append(all, *d)
		}
	}
	return all
}

// clash refuses what two live VMMs cannot share.
func clash(c, other vmm.Config) error {
	switch {
	case c.ID == other.ID:
		return errors.New("the VM already has a process: id")
	case c.APISock == other.APISock, c.AgentSock == other.AgentSock:
		return errors.New("a socket is in use: one")
	case c.NIC != nil && other.NIC != nil && c.NIC.Tap != "" && c.NIC.Tap == other.NIC.Tap:
		return fmt.Errorf("tap %s is busy: one", c.NIC.Tap)
	}
	for _, a := range disks(c) {
		for _, b := range disks(other) {
			if a.Path == b.Path && !(a.ReadOnly && b.ReadOnly) {
				return fmt.Errorf("disk %s is locked: one", a.Path)
			}
		}
	}
	return nil
}

// makeFiles leaves what a VMM leaves in the file system: its directories must exist, and its sockets not yet.
func makeFiles(c vmm.Config) error {
	for _, sock := range []string{c.APISock, c.AgentSock} {
		f, err := os.OpenFile(sock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("make socket: %w", err)
		}
		_ = f.Close()
	}
	for path, text := range map[string]string{c.Console: "fake guest boots with " + strings.Join(c.Args, " ") + "\n", c.Log: ""} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
	}
	return nil
}

// Find implements vmm.Driver.
func (d *Driver) Find(_ context.Context, ref vmm.Ref) (proc.Identity, bool, error) {
	p := d.bySocket(func(c vmm.Config) bool { return c.APISock == ref.APISock })
	if p != nil && d.host.isDying(p) {
		return proc.Identity{}, false, nil // its command line went first
	}
	if hidden := d.host.currentRules().Hidden; p != nil && (hidden == nil || !hidden(*p.config)) {
		return p.id, true, nil
	}
	return proc.Identity{}, false, nil
}

func (d *Driver) bySocket(match func(vmm.Config) bool) *process {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	for _, p := range d.host.running {
		if p.config != nil && match(*p.config) {
			return p
		}
	}
	return nil
}

// DialAgent implements vmm.Driver.
func (d *Driver) DialAgent(ctx context.Context, ref vmm.Ref) (net.Conn, error) {
	p := d.bySocket(func(c vmm.Config) bool { return c.AgentSock == ref.AgentSock })
	if p == nil {
		return nil, fmt.Errorf("connect to guest agent at %s: connection refused", ref.AgentSock)
	}
	return p.guest.dial(ctx)
}

// Multiplexed implements vmm.Driver: each dial is a connection.
func (d *Driver) Multiplexed() bool { return false }

// Remove implements vmm.Driver: nothing is made beside a process.
func (d *Driver) Remove(context.Context, vmm.Ref) error { return nil }

// Quit implements vmm.Driver.
func (d *Driver) Quit(ctx context.Context, ref vmm.Ref) error {
	p := d.bySocket(func(c vmm.Config) bool { return c.APISock == ref.APISock })
	if p == nil {
		return nil
	}
	if err := d.host.awaitRunning(ctx, p); err != nil {
		return fmt.Errorf("quit: %w", err)
	}
	if ok := d.host.currentRules().Quit; ok != nil && !ok(*p.config) {
		return nil
	}
	return act.Do(ctx, "process.quit", func() error {
		d.host.end(p, "exit status 0")
		return nil
	})
}

// Paused implements vmm.Pauser.
func (d *Driver) Paused(ctx context.Context, ref vmm.Ref) (bool, error) {
	halted, full, err := d.halted(ctx, ref)
	return halted && !full, err
}

// Runs implements vmm.Pauser.
func (d *Driver) Runs(ctx context.Context, ref vmm.Ref) (bool, error) {
	halted, _, err := d.halted(ctx, ref)
	return !halted, err
}

// OutOfSpace implements vmm.Halter.
func (d *Driver) OutOfSpace(ctx context.Context, ref vmm.Ref) (bool, error) {
	_, full, err := d.halted(ctx, ref)
	return full, err
}

func (d *Driver) halted(ctx context.Context, ref vmm.Ref) (halted, full bool, err error) {
	p, err := d.served(ctx, ref)
	if err != nil {
		return false, false, err
	}
	halted, full = d.host.halted(p)
	return halted, full, nil
}

// Pause implements vmm.Pauser.
func (d *Driver) Pause(ctx context.Context, ref vmm.Ref) error {
	return d.pause(ctx, ref, "machine.stop", true)
}

// Resume implements vmm.Pauser.
func (d *Driver) Resume(ctx context.Context, ref vmm.Ref) error {
	return d.pause(ctx, ref, "machine.cont", false)
}

func (d *Driver) pause(ctx context.Context, ref vmm.Ref, what string, halt bool) error {
	p, err := d.served(ctx, ref)
	if err != nil {
		return err
	}
	return act.Do(ctx, what, func() error {
		d.host.pause(p, halt)
		return nil
	})
}

// served is the process behind an API socket, once it answers.
func (d *Driver) served(ctx context.Context, ref vmm.Ref) (*process, error) {
	p := d.bySocket(func(c vmm.Config) bool { return c.APISock == ref.APISock })
	if p == nil {
		return nil, fmt.Errorf("connect to %s: connection refused", ref.APISock)
	}
	return p, d.host.awaitRunning(ctx, p)
}
