package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

func TestTakenPort(t *testing.T) {
	p := newPublisher(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	others := vm.Port{HostIP: "127.0.0.1", HostPort: l.Addr().(*net.TCPAddr).Port, GuestPort: 80, Protocol: "tcp"}
	anywhere := others
	anywhere.HostIP = "0.0.0.0"
	for _, port := range []vm.Port{others, anywhere} {
		_, err = p.Reserve(t.Context(), id, "web", []vm.Port{port}, nil)
		if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) || vm.HintOf(err) == "" {
			t.Errorf("%s: %v, want a conflict that names this process", port, err)
		}
	}
	ours := open(t, p, nil, "tcp", 80)
	two := []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}, ours}
	_, err = p.Reserve(t.Context(), "ffffffffffff", "db", two, nil)
	if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "VM web has published it") {
		t.Errorf("%v, want a conflict that names the VM", err)
	}
	if hint := vm.HintOf(err); !strings.HasSuffix(hint, "banger vm ports rm web "+ours.String()) {
		t.Errorf("a hint that cannot be typed: %q", hint)
	}
	unnamed, err := p.Reserve(t.Context(), "", "", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Reserve(t.Context(), "ffffffffffff", "db", unnamed.Ports(), nil)
	if err == nil || !strings.Contains(err.Error(), "a VM that is being made has published it") || strings.Contains(vm.HintOf(err), "ports rm") {
		t.Errorf("%v, %q", err, vm.HintOf(err))
	}
	unnamed.Close()
	if len(p.taken) != 1 {
		t.Errorf("%d ports are taken after a reservation that failed, want 1", len(p.taken))
	}
	if _, err := p.Reserve(t.Context(), id, "web", []vm.Port{ours}, nil); err != nil {
		t.Errorf("its own port: %v", err)
	}
	_, err = p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "192.0.2.1", HostPort: 8080, GuestPort: 80, Protocol: "tcp"}}, nil)
	if vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), "no such address") {
		t.Errorf("%v", err)
	}
}

// TestPortComesFree has a port that is another's at first: the VM goes without it, is told so, and gets it.
func TestPortComesFree(t *testing.T) {
	taken := true
	var said []string
	p := New(Config{Log: slog.New(slog.DiscardHandler), Changed: func(v vm.ID, name string, _ vm.Port, why string) {
		said = append(said, fmt.Sprint(v, " ", name, " ", why != ""))
	}, Listen: func(ctx context.Context, port vm.Port) (Socket, error) {
		if taken {
			return Socket{}, unix.EADDRINUSE
		}
		port.HostPort = 0
		return Listen(ctx, port)
	}})
	defer p.Close()
	port := vm.Port{HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80, Protocol: "tcp"}
	apply := func() time.Duration { return p.Apply(t.Context(), id, "web", p.Mark(), []vm.Port{port}, true, nil) }
	if again := apply(); again <= 0 || again > time.Second {
		t.Errorf("tried again after %v", again)
	}
	if s, ok := p.Status(id, port); !ok || s.Open || s.Why == "" || s.RetryAt.IsZero() {
		t.Errorf("%+v", s)
	}
	if apply(); p.vms[id].entries[port].tries != 1 {
		t.Error("tried before it was due")
	}
	taken, p.vms[id].entries[port].retryAt = false, time.Time{}
	if again := apply(); again != 0 {
		t.Errorf("to be tried once more, after %v", again)
	}
	if s, _ := p.Status(id, port); !s.Open || s.Why != "" {
		t.Errorf("%+v", s)
	}
	if got := strings.Join(said, "; "); got != "0123456789ab web true; 0123456789ab web false" {
		t.Errorf("told %q", got)
	}
}

// TestRemovedPort breaks off what it carries; a port that is closed with its VM lets that come to its end.
func TestRemovedPort(t *testing.T) {
	p, g := newPublisher(t), newLoopback(t)
	echo := server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	say := func(c *net.TCPConn) error {
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	a := dial(t, open(t, p, g, "tcp", echo))
	if err := say(a); err != nil {
		t.Fatal(err)
	}
	two := open(t, p, g, "tcp", echo) // whose spec has the first no more
	b := dial(t, two)
	if err := say(b); err != nil {
		t.Fatal(err)
	}
	settled(t, func() bool { return say(a) != nil }) // what a removed port carries is broken off
	old := p.Mark()
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: echo, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	release := p.Hold(id, "web", r)
	third := r.Ports()[0]
	for _, mark := range []uint64{p.Mark(), old} { // held; then released, by a record that was read before
		p.Apply(t.Context(), id, "web", mark, []vm.Port{two}, true, g)
		if s, _ := p.Status(id, third); !s.Open {
			t.Error("a port that is being added was closed")
		}
		release(true)
		release = func(bool) {}
	}
	p.Apply(t.Context(), id, "web", p.Mark(), []vm.Port{two}, false, g) // the VM is to stop
	if _, err := net.Dial("tcp4", two.Host()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want the port closed", err)
	}
	if err := say(b); err != nil {
		t.Errorf("a connection of a VM that stops: %v", err)
	}
	if len(p.taken) != 0 {
		t.Errorf("%d ports are still taken", len(p.taken))
	}
}

func TestHoldGivenBack(t *testing.T) {
	p := newPublisher(t)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "udp"}, {HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Hold(id, "web", r)(false)
	r.Close()
	if len(p.taken) != 0 || len(p.vms[id].entries) != 0 {
		t.Errorf("%d taken, %d entries, want none", len(p.taken), len(p.vms[id].entries))
	}
}

func TestSystemAvoids(t *testing.T) {
	p := newPublisher(t)
	var first int
	r, err := p.Reserve(t.Context(), "", "new", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 80, Protocol: "tcp"}}, func(port vm.Port) bool {
		if first == 0 {
			first = port.HostPort
		}
		return port.HostPort == first
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := r.Ports()[0].HostPort; got == first || got == 0 || len(p.taken) != 1 {
		t.Errorf("chose %d although it was to avoid %d; %d are taken", got, first, len(p.taken))
	}
}

// TestRetainKnowsWhatIsNew has a port given to a VM while another change of its record, read before, is told.
func TestRetainKnowsWhatIsNew(t *testing.T) {
	p := newPublisher(t)
	first := open(t, p, nil, "tcp", 80)
	mark := p.Mark()
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{{HostIP: "127.0.0.1", GuestPort: 81, Protocol: "tcp"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	release := p.Hold(id, "web", r)
	second := r.Ports()[0]
	release(true)
	r.Close()
	p.Retain(id, mark, []vm.Port{first})
	if s, _ := p.Status(id, second); !s.Open {
		t.Error("a port that was just opened is closed")
	}
	p.Retain(id, p.Mark(), []vm.Port{first})
	if s, _ := p.Status(id, second); s.Open {
		t.Error("a port that its VM does not publish any more is open")
	}
}

// TestReservedAgain keeps what a VM has already for who reserves it once more, until that is over.
func TestReservedAgain(t *testing.T) {
	p := newPublisher(t)
	port := open(t, p, nil, "tcp", 80)
	r, err := p.Reserve(t.Context(), id, "web", []vm.Port{port}, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := p.Mark()
	stop := func(mark uint64) bool {
		p.Apply(t.Context(), id, "web", mark, []vm.Port{port}, false, nil)
		s, _ := p.Status(id, port)
		return !s.Open
	}
	if stop(p.Mark()) {
		t.Error("it was closed under a reservation")
	}
	r.Close()
	if stop(old) {
		t.Error("it was closed by a record that was read before the reservation ended")
	}
	if !stop(p.Mark()) || len(p.taken) != 0 {
		t.Error("it is not closed with its VM")
	}
}
