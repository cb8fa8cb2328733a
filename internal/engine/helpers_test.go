package engine

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

const noSpaceErrno = syscall.ENOSPC

// waitForProcess polls: the fake host has no event for a launch.
func waitForProcess(t *testing.T, w *world, id vm.ID) proc.Identity {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p, ok := w.host.ProcessOf(id); ok {
			return p
		}
	}
	t.Fatal("no process was launched")
	return proc.Identity{}
}

// stranger is the unrelated process that took a reused pid; the fake numbers start times by one counter.
func stranger(w *world) proc.Identity {
	for start := range uint64(10) {
		if id := (proc.Identity{PID: fakeFirstPID, StartTime: start, BootID: w.host.BootID()}); w.host.Alive(id) {
			return id
		}
	}
	return proc.Identity{}
}

const fakeFirstPID = 10_000_001

// onePort makes the fake's guests reachable as QEMU's are: by one connection at a time, which carries a session of many
// streams. Who dials while it is held waits in the backlog.
type onePort struct {
	vmm.Driver
	jails bool
	host  *fake.Host
	turns *atomic.Int32 // counts Runs
	asked *atomic.Int32 // counts OutOfSpace
	mu    sync.Mutex
	ports map[string]chan struct{} // by socket: holds one token while the port is free
}

func (*onePort) Multiplexed() bool { return true }

func (d *onePort) Paused(ctx context.Context, ref vmm.Ref) (bool, error) {
	return d.Driver.(vmm.Pauser).Paused(ctx, ref)
}

func (d *onePort) Runs(ctx context.Context, ref vmm.Ref) (bool, error) {
	d.turns.Add(1)
	return d.Driver.(vmm.Pauser).Runs(ctx, ref)
}

func (d *onePort) OutOfSpace(ctx context.Context, ref vmm.Ref) (bool, error) {
	d.asked.Add(1)
	return d.Driver.(vmm.Halter).OutOfSpace(ctx, ref)
}

func (d *onePort) Pause(ctx context.Context, ref vmm.Ref) error {
	return d.Driver.(vmm.Pauser).Pause(ctx, ref)
}

func (d *onePort) Resume(ctx context.Context, ref vmm.Ref) error {
	return d.Driver.(vmm.Pauser).Resume(ctx, ref)
}

func (d *onePort) Jailed(id proc.Identity) (bool, error) {
	c, there := d.host.Machines()[id]
	return !there || c.UID != 0, nil
}

func (d *onePort) Features() vmm.Features {
	f := d.Driver.Features()
	f.Jails, f.Metrics = d.jails, d.jails // as Firecracker's
	return f
}

func (d *onePort) port(sock string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.ports[sock]
	if !ok {
		p = make(chan struct{}, 1)
		p <- struct{}{}
		d.ports[sock] = p
	}
	return p
}

func (d *onePort) DialAgent(ctx context.Context, ref vmm.Ref) (net.Conn, error) {
	port := d.port(ref.AgentSock)
	select {
	case <-port:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	host := os.NewFile(uintptr(fds[0]), "host")
	conn, err := net.FileConn(host)
	_ = host.Close()
	if err != nil {
		return nil, err
	}
	guestEnd := os.NewFile(uintptr(fds[1]), "guest")
	serving, stop := context.WithCancel(context.Background())
	go func() {
		defer func() { port <- struct{}{} }()
		defer func() { _ = guestEnd.Close() }()
		_ = guest.ServePort(serving, guestEnd, func(l net.Listener) error { return d.forward(ref, l) })
	}()
	return &portConn{conn, stop}, nil
}

// forward takes each stream of a session to the fake's guest.
func (d *onePort) forward(ref vmm.Ref, l net.Listener) error {
	for {
		stream, err := l.Accept()
		if err != nil {
			return err
		}
		inner, err := d.Driver.DialAgent(context.Background(), ref)
		if err != nil {
			_ = stream.Close()
			return err
		}
		go func() { _, _ = io.Copy(inner, stream); _ = inner.(*net.UnixConn).CloseWrite() }()
		go func() { _, _ = io.Copy(stream, inner); _ = stream.Close(); _ = inner.Close() }()
	}
}

type portConn struct {
	net.Conn
	stop context.CancelFunc
}

func (c *portConn) Close() error {
	c.stop()
	return c.Conn.Close()
}
