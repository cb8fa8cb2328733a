package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"banger/internal/disk"
	"banger/internal/disk/dmsnap"
	"banger/internal/host/file"
	"banger/internal/vm"
	"banger/internal/vmm"
	fc "banger/internal/vmm/firecracker"
)

// firecracker compares `banger vm run --rm` on Firecracker with a bare one of the same kernel, initramfs, root and
// devices.
func (b bench) firecracker(ctx context.Context) error {
	bare, err := b.bareFirecracker(ctx)
	if err != nil {
		return err
	}
	defer bare.remove(ctx)
	return b.compare(ctx, "bare Firecracker", bare.boot, onFirecracker...)
}

var onFirecracker = []string{"--vmm", "firecracker"}

// jailless is a Firecracker without banger and without a jail, but for the disk: a dm-snapshot of the same image.
type jailless struct {
	binary string
	conf   fc.Machine
	dir    string // its files
	base   string // the image
	disks  dmsnap.Driver
}

// The bare machine's own, among the names that VMs could have.
const (
	bareID  = "0000000bbbbb"
	bareTap = "bench-bare"
)

// bareFirecracker starts a VM to see how its machine is made, and deletes it.
func (b bench) bareFirecracker(ctx context.Context) (_ *jailless, err error) {
	view, remove, err := b.model(ctx, onFirecracker...)
	if err != nil {
		return nil, err
	}
	defer func() { err = remove(err) }()
	m := &jailless{disks: dmsnap.New(), base: filepath.Join(b.banger.root, "images", strings.TrimPrefix(view.ImageDigest, "sha256:"), "root.ext4")}
	if m.binary, err = exec.LookPath("firecracker"); err != nil {
		return nil, err
	}
	if m.dir, err = os.MkdirTemp("", "bb-"); err != nil {
		return nil, err
	}
	if err := m.copyFrom(ctx, fmt.Sprintf("/proc/%d/root", view.Handles.PID)); err != nil {
		return nil, errors.Join(fmt.Errorf("copy the machine of %s: %w", view.Name, err), os.RemoveAll(m.dir))
	}
	if out, err := exec.CommandContext(ctx, "ip", "tuntap", "add", "dev", bareTap, "mode", "tap").CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("make a tap device: %w\n%s", err, out), os.RemoveAll(m.dir))
	}
	return m, nil
}

// copyFrom takes configuration and files from a machine's jail.
func (m *jailless) copyFrom(ctx context.Context, jail string) error {
	text, err := os.ReadFile(filepath.Join(jail, "vm.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m.conf); err != nil {
		return err
	}
	take := func(path *string) {
		to := filepath.Join(m.dir, filepath.Base(*path))
		if err == nil {
			err = os.WriteFile(to, nil, 0o600)
		}
		if err == nil {
			err = file.CopySparse(ctx, to, filepath.Join(jail, *path))
		}
		*path = to
	}
	take(&m.conf.BootSource.KernelImagePath)
	take(&m.conf.BootSource.InitrdPath)
	for i := range m.conf.Drives[1:] { // the first is the root: a block device, made anew for each boot
		take(&m.conf.Drives[1+i].PathOnHost)
	}
	for i := range m.conf.NetworkInterfaces {
		m.conf.NetworkInterfaces[i].HostDevName = bareTap
	}
	m.conf.Vsock.UDSPath = filepath.Join(m.dir, "agent.sock")
	m.conf.Logger, m.conf.Metrics = nil, nil
	return err
}

func (m *jailless) remove(ctx context.Context) {
	_ = exec.CommandContext(context.WithoutCancel(ctx), "ip", "link", "delete", bareTap).Run()
	_ = os.RemoveAll(m.dir)
}

// boot measures from the start of Firecracker to the first output of a command, and leaves nothing. Making the disk is
// not counted.
func (m *jailless) boot(ctx context.Context) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	root := disk.Overlay{ID: bareID, Base: m.base, Path: filepath.Join(m.dir, "root.cow")}
	made, err := m.disks.Ensure(ctx, root)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.disks.Remove(context.WithoutCancel(ctx), root)) }()
	m.conf.Drives[0].PathOnHost = made.Path
	text, err := json.Marshal(m.conf)
	if err != nil {
		return 0, err
	}
	conf := filepath.Join(m.dir, "bare.json")
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		return 0, err
	}
	if err := vmm.RemoveStale(ctx, m.conf.Vsock.UDSPath); err != nil {
		return 0, err
	}

	machine := exec.CommandContext(ctx, m.binary, "--no-api", "--config-file", conf)
	var said strings.Builder
	machine.Stdout, machine.Stderr = &said, &said
	start := time.Now()
	if err := machine.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = machine.Process.Kill()
		_ = machine.Wait()
		if err != nil {
			err = fmt.Errorf("boot a bare Firecracker: %w\n%s", err, said.String())
		}
	}()
	driver := fc.New(fc.Config{})
	ref := vmm.Ref{ID: vm.ID(bareID), AgentSock: m.conf.Vsock.UDSPath}
	err = firstOutput(ctx, func(ctx context.Context) (net.Conn, error) { return driver.DialAgent(ctx, ref) }, "echo", "up")
	return time.Since(start), err
}
