package engine

import (
	"context"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// deafFirst is a port whose first connection is read by a guest that answers nothing.
type deafFirst struct {
	vmm.Driver
	t     *testing.T
	dials atomic.Int32
}

func (*deafFirst) Multiplexed() bool { return true }

func (d *deafFirst) DialAgent(context.Context, vmm.Ref) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	host, port := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "port")
	defer func() { _ = host.Close() }()
	first := d.dials.Add(1) == 1
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = port.Close() }()
		if first {
			_, _ = io.Copy(io.Discard, port)
			return
		}
		_ = guest.ServePort(ctx, port, func(l net.Listener) error {
			for {
				if _, err := l.Accept(); err != nil {
					return err
				}
			}
		})
	}()
	d.t.Cleanup(func() { cancel(); <-ended })
	return net.FileConn(host)
}

// A guest that was paused while daemons came and went may be deaf on the connection that it finds when it goes on. It was never
// reached then, until the next daemon connected.
func TestADeafConnectionIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := &deafFirst{t: t}
	a := newAgent(d, vmm.Ref{})
	a.deafAfter = 20 * time.Millisecond
	defer a.close()
	if _, err := a.session(ctx); err != nil || d.dials.Load() < 2 {
		t.Errorf("%d connections, %v", d.dials.Load(), err)
	}
	// Who waits no longer ends it.
	d = &deafFirst{t: t}
	a = newAgent(d, vmm.Ref{})
	defer a.close()
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := a.session(short); err == nil || ctx.Err() != nil || d.dials.Load() != 1 {
		t.Errorf("%d connections, %v", d.dials.Load(), err)
	}
}
