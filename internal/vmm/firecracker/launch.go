package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// configFile is the configuration of a machine without a jail, in the VM's directory.
const configFile = "firecracker.json"

// Launch implements vmm.Driver. The whole machine is in one configuration file: from the first instant of the process
// it is on its way to boot, whoever dies meanwhile.
func (d *Driver) Launch(ctx context.Context, c vmm.Config) (proc.Identity, <-chan string, error) {
	id, exited, err := d.launch(ctx, c)
	if err != nil {
		return proc.Identity{}, nil, fmt.Errorf("launch firecracker for %s: %w", c.Name, err)
	}
	return id, exited, nil
}

func (d *Driver) launch(ctx context.Context, c vmm.Config) (_ proc.Identity, _ <-chan string, err error) {
	if d.jails() && c.UID == 0 {
		return proc.Identity{}, nil, vm.Errorf(vm.CodeInternal, "put its VMM into a jail: the VM has no user for it, and root is in none").
			WithHint("stop the VM and start it again, which gives it a user; report it if that does not help")
	}
	f, err := d.find(ctx)
	if err != nil {
		return proc.Identity{}, nil, err
	}
	if v := d.host.Look(); !v.Usable { // it may have gone since the VM was made
		return proc.Identity{}, nil, vm.Errorf(vm.CodeMissing, "use KVM: %s", v.Why).WithHint("%s", v.Hint)
	}
	ref := c.Ref()
	if err := vmm.Vacant(c.Cgroup); err != nil {
		return proc.Identity{}, nil, err
	}
	if c.Cgroup == "" { // else it has told, sooner than all the host's processes
		if _, running, err := d.Find(ctx, ref); err != nil || running {
			if err == nil {
				err = vm.Errorf(vm.CodeConflict, "VM %s has a VMM already", c.ID)
			}
			return proc.Identity{}, nil, err
		}
	}
	for _, path := range []string{c.APISock, c.AgentSock} {
		if err := vmm.RemoveStale(ctx, path); err != nil {
			return proc.Identity{}, nil, err
		}
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return proc.Identity{}, nil, fmt.Errorf("look at the directory of the socket: %w", err)
		}
	}
	if err := d.Remove(ctx, ref); err != nil { // what an earlier run left: the jailer refuses to make things twice
		return proc.Identity{}, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove(context.WithoutCancel(ctx), ref), removeSocket(ctx, c.APISock), removeSocket(ctx, c.AgentSock))
		}
	}()
	s := vmm.Spawn{Binary: f.Binary, Log: c.Log, Stdout: c.Console, Cgroup: c.Cgroup}
	if !d.jails() {
		return d.launchFree(ctx, c, s)
	}
	return d.launchJailed(ctx, c, s, f.Jailer)
}

func removeSocket(ctx context.Context, path string) error {
	return act.Do(ctx, "socket.remove", func() error { return os.RemoveAll(path) })
}

// launchFree starts the VMM as the daemon's own user, with its sockets where they are looked for.
func (d *Driver) launchFree(ctx context.Context, c vmm.Config, s vmm.Spawn) (proc.Identity, <-chan string, error) {
	f := files{kernel: c.Kernel, initramfs: c.Initramfs, agentSock: c.AgentSock, log: c.Log, metrics: c.Metrics}
	for _, disk := range disksOf(c) {
		f.disks = append(f.disks, disk.Path)
	}
	conf, err := configuration(c, f)
	if err != nil {
		return proc.Identity{}, nil, vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	for _, path := range []string{c.Log, c.Metrics} {
		if path == "" {
			continue
		}
		if err := beginLog(ctx, path); err != nil {
			return proc.Identity{}, nil, err
		}
	}
	path := filepath.Join(c.Dir, configFile)
	if err := act.Do(ctx, "configuration", func() error { return os.WriteFile(path, conf, 0o600) }); err != nil {
		return proc.Identity{}, nil, fmt.Errorf("write the machine's configuration: %w", err)
	}
	s.Args = []string{"--id", string(c.ID), "--api-sock", c.APISock, "--config-file", path}
	return s.Start(ctx)
}

// beginLog makes a file that Firecracker wants to be there, with nothing in it: it does not append, but writes from the
// file's beginning on, over what an earlier run has said.
func beginLog(ctx context.Context, path string) error {
	if err := act.Do(ctx, "log", func() error { return os.WriteFile(path, nil, 0o600) }); err != nil {
		return fmt.Errorf("begin the VMM's log: %w", err)
	}
	return nil
}

// launchJailed starts it in a jail, and links the sockets to where they are looked for: a jail's path may be longer than
// a socket's may be.
func (d *Driver) launchJailed(ctx context.Context, c vmm.Config, s vmm.Spawn, jailer string) (proc.Identity, <-chan string, error) {
	root := d.jailRoot(c.Ref(), s.Binary)
	if _, err := furnish(ctx, root, c); err != nil {
		return proc.Identity{}, nil, err
	}
	for link, name := range map[string]string{c.APISock: inAPI, c.AgentSock: inAgent} {
		if err := act.Do(ctx, "socket.link", func() error { return os.Symlink(filepath.Join(root, name), link) }); err != nil {
			return proc.Identity{}, nil, fmt.Errorf("link the jail's socket: %w", err)
		}
	}
	s.Args = jailerArgs(c.Ref(), s.Binary, c.UID)
	s.Binary = jailer
	return s.Start(ctx)
}
