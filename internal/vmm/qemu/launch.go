package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// agentFD is the descriptor of the first of exec.Cmd's ExtraFiles.
const agentFD = 3

// Launch implements vmm.Driver. When QEMU ends with an error, what exited delivers carries the last lines of its log.
func (d *Driver) Launch(ctx context.Context, c vmm.Config) (proc.Identity, <-chan string, error) {
	id, exited, err := d.launch(ctx, c)
	if err != nil {
		return proc.Identity{}, nil, fmt.Errorf("launch qemu for %s: %w", c.Name, err)
	}
	return id, exited, nil
}

func (d *Driver) launch(ctx context.Context, c vmm.Config) (_ proc.Identity, _ <-chan string, err error) {
	f, err := d.find(ctx)
	if err != nil {
		return proc.Identity{}, nil, err
	}
	args, err := arguments(c, f.machine())
	if err != nil {
		return proc.Identity{}, nil, vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	if err := vmm.Vacant(c.Cgroup); err != nil {
		return proc.Identity{}, nil, err
	}
	agent, err := listen(ctx, c.AgentSock)
	if err != nil {
		return proc.Identity{}, nil, err
	}
	defer func() { _ = agent.Close() }() // the child has its own
	defer func() {
		if err != nil {
			_ = act.Do(ctx, "socket.remove", func() error { return os.Remove(c.AgentSock) })
		}
	}()
	if err := vmm.RemoveStale(ctx, c.APISock); err != nil {
		return proc.Identity{}, nil, err
	}
	// QEMU would find these out only when it runs. The console gets its mode here: QEMU's is the umask's.
	if _, err := os.Stat(filepath.Dir(c.APISock)); err != nil {
		return proc.Identity{}, nil, fmt.Errorf("look at the directory of the API socket: %w", err)
	}
	console, err := vmm.OpenLog(ctx, c.Console)
	if err != nil {
		return proc.Identity{}, nil, err
	}
	_ = console.Close()
	if c.NIC != nil && c.NIC.Tap != "" {
		if _, err := net.InterfaceByName(c.NIC.Tap); err != nil { // QEMU, where it may, would make one of its own
			return proc.Identity{}, nil, fmt.Errorf("look for tap device %s: %w", c.NIC.Tap, err)
		}
	}
	return vmm.Spawn{Binary: f.Binary, Args: args, Log: c.Log, Files: []*os.File{agent}, Cgroup: c.Cgroup}.Start(ctx)
}

// listen makes the agent's listening socket, over a stale one, and returns its descriptor; the file stays.
func listen(ctx context.Context, path string) (*os.File, error) {
	if err := vmm.RemoveStale(ctx, path); err != nil {
		return nil, err
	}
	var l *net.UnixListener
	err := act.Do(ctx, "socket", func() (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", path, err), act.Do(ctx, "socket.remove", func() error { return os.Remove(path) }))
	}
	return f, nil
}
