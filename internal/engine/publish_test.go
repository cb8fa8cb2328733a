package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/publish"
	"banger/internal/vm"
)

// chosen is a port of a guest at one of the host that the system chooses.
func chosenPort(guest int) vm.Port {
	return vm.Port{HostIP: vm.DefaultHostIP, GuestPort: guest, Protocol: vm.ProtocolTCP}
}

// publishes makes a VM that runs and publishes ports of its guest.
func (d *daemon) publishes(name string, ports ...vm.Port) vm.VMRecord {
	d.t.Helper()
	r, err := d.Create(d.t.Context(), api.CreateRequest{Name: name, Start: true, Ports: ports}, nil)
	must(d.t, err)
	r, err = d.Watch().Started(d.t.Context(), r.ID, nil)
	must(d.t, err)
	return r
}

// echo says something to a published port, and is told the same.
func echo(t *testing.T, p vm.Port) error {
	t.Helper()
	c, err := net.Dial("tcp4", p.Host())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("it answers %q", b)
	}
	return err
}

// taken has another process, as which this one passes, listen on a port.
func taken(t *testing.T) (vm.Port, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	p := chosenPort(80)
	p.HostPort = l.Addr().(*net.TCPAddr).Port
	return p, l
}

func (d *daemon) portState(ref string, p vm.Port) api.PortStatus {
	d.t.Helper()
	r, err := d.Store.VMByRef(d.t.Context(), ref)
	must(d.t, err)
	all := d.Published(r)
	i := slices.IndexFunc(all, func(s api.PortStatus) bool { return s.Port == p })
	if i < 0 {
		d.t.Fatalf("VM %s does not publish %s", ref, p)
	}
	return all[i]
}

func TestPublished(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.publishes("web", chosenPort(80), chosenPort(81))
	one, two := r.Spec.Ports[0], r.Spec.Ports[1]
	if one.HostPort == 0 || one.HostPort == two.HostPort {
		t.Fatalf("it publishes %v", r.Spec.Ports)
	}
	must(t, errors.Join(echo(t, one), echo(t, two)))
	all, err := d.Ports(t.Context(), "web")
	if err != nil || all.Error != "" || len(all.Published) != 2 || all.Published[0].State != api.PortOpen || len(all.Listeners) != 1 || all.Listeners[0].Process != "nginx" {
		t.Errorf("%+v, %v", all, err)
	}

	d.kill() // VMs live on, their ports do not
	if err := echo(t, one); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with no daemon: %v", err)
	}
	d = w.start()
	must(t, errors.Join(echo(t, one), echo(t, two)))

	_, err = d.Pause(t.Context(), "web")
	must(t, err)
	c, err := net.Dial("tcp4", one.Host())
	must(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("x"))
	must(t, err)
	_, err = d.Resume(t.Context(), "web")
	must(t, err)
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("a client that came while it was paused: %v", err)
	}

	_, err = d.Stop(t.Context(), "web", false, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	if err := echo(t, one); !errors.Is(err, syscall.ECONNREFUSED) || d.portState("web", one).State != api.PortClosed {
		t.Errorf("of a stopped VM: %v, %+v", err, d.portState("web", one))
	}
	if all, err = d.Ports(t.Context(), "web"); err != nil || all.Error != "it does not run" || len(all.Published) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// TestTakenPortRefuses holds that nothing is made for a VM whose port somebody has, and that it is told who.
func TestTakenPortRefuses(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	p, l := taken(t)
	for _, start := range []bool{false, true} {
		_, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: start, Ports: []vm.Port{chosenPort(1), p}}, nil)
		if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "process ") || vm.HintOf(err) == "" {
			t.Errorf("%v", err)
		}
	}
	if _, err := d.Store.VMByRef(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotFound || w.ensured.Load() != 0 {
		t.Errorf("something was made: %v, %d images and kernels", err, w.ensured.Load())
	}
	for _, bad := range []vm.Port{{HostIP: "localhost", HostPort: 1, GuestPort: 1, Protocol: "tcp"}, {HostIP: "127.0.0.1", HostPort: 1, Protocol: "tcp"}} {
		if _, err := d.Create(t.Context(), api.CreateRequest{Ports: []vm.Port{bad}}, nil); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	db := d.publishes("db", chosenPort(80))
	_, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Ports: db.Spec.Ports}, nil)
	if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "VM db has published it") {
		t.Errorf("%v", err)
	}

	_ = l.Close()
	web, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Ports: []vm.Port{p}}, nil)
	must(t, err)
	l, err = net.Listen("tcp4", p.Host()) // a VM that does not run holds nothing
	must(t, err)
	if _, err := d.Start(t.Context(), "web"); vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "process ") {
		t.Errorf("started with a taken port: %v", err)
	}
	if r, err := d.Store.VM(t.Context(), web.ID); err != nil || r.Want != vm.WantStopped {
		t.Errorf("want %s, %v", r.Want, err)
	}
	_ = l.Close()
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	_, err = d.Watch().Started(t.Context(), web.ID, nil)
	must(t, err)
	must(t, echo(t, p))
}

// TestPortTakenMeanwhile has a VM live on without a port that was taken while no daemon ran, and have it again when it is free.
func TestPortTakenMeanwhile(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.publishes("web", chosenPort(80))
	p := r.Spec.Ports[0]
	d.kill()
	l, err := net.Listen("tcp4", p.Host())
	must(t, err)
	defer func() { _ = l.Close() }()
	d = w.start()
	if s := d.portState("web", p); s.State != api.PortFailed || !strings.Contains(s.Error, "process ") || s.RetryAt.IsZero() {
		t.Errorf("%+v", s)
	}
	d.until(r.ID, "the VM to run", func(r vm.VMRecord) bool { return r.State == vm.StateRunning && d.Observe(r).Ready })
	_ = l.Close()
	d.until(r.ID, "the port", func(vm.VMRecord) bool { return d.portState("web", p).State == api.PortOpen })
	must(t, echo(t, p))
}

func TestChangePorts(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.publishes("web", chosenPort(80))
	first := r.Spec.Ports[0]
	change := func(add []vm.Port, remove ...string) error {
		var err error
		r, err = d.ChangePorts(t.Context(), "web", api.PortsRequest{Add: add, Remove: remove})
		return err
	}
	must(t, change([]vm.Port{chosenPort(443), chosenPort(443)}))
	if len(r.Spec.Ports) != 3 {
		t.Fatalf("%v", r.Spec.Ports)
	}
	for _, p := range r.Spec.Ports {
		must(t, echo(t, p))
	}
	other, _ := taken(t)
	before := r.Spec.Ports
	for _, c := range []struct {
		add    []vm.Port
		remove []string
		code   vm.Code
	}{
		{[]vm.Port{chosenPort(1), other}, []string{"80"}, vm.CodeConflict},
		{[]vm.Port{first}, nil, vm.CodeExists},
		{[]vm.Port{{HostIP: "0.0.0.0", HostPort: first.HostPort, GuestPort: 1, Protocol: "tcp"}}, nil, vm.CodeInvalid},
		{nil, []string{"80", "81"}, vm.CodeNotFound},
		{nil, []string{"x"}, vm.CodeInvalid},
		{nil, nil, vm.CodeInvalid},
	} {
		if err := change(c.add, c.remove...); vm.CodeOf(err) != c.code {
			t.Errorf("add %v, remove %v: %v, want %s", c.add, c.remove, err, c.code)
		}
	}
	now, err := d.Store.VMByRef(t.Context(), "web")
	if err != nil || !slices.Equal(now.Spec.Ports, before) {
		t.Errorf("a refused change has left %v, %v", now.Spec.Ports, err)
	}
	must(t, echo(t, first))

	must(t, change(nil, "443"))
	if len(r.Spec.Ports) != 1 || !errors.Is(echo(t, before[1]), syscall.ECONNREFUSED) {
		t.Errorf("removed: %v", r.Spec.Ports)
	}
	must(t, echo(t, first))
	must(t, change(nil, "80"))
	must(t, change([]vm.Port{{HostIP: first.HostIP, HostPort: first.HostPort, GuestPort: 8080, Protocol: "tcp"}}))
	must(t, echo(t, r.Spec.Ports[0]))

	_, err = d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	must(t, change([]vm.Port{chosenPort(90)}))
	p := r.Spec.Ports[1]
	if !errors.Is(echo(t, p), syscall.ECONNREFUSED) {
		t.Error("a port of a stopped VM is open")
	}
	_, err = d.Start(t.Context(), "web")
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
	must(t, echo(t, p))
}

// TestStartedWhileItsPortsChange has a VM started between the reading of its record and the change of it.
func TestStartedWhileItsPortsChange(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web"}, nil)
	must(t, err)
	start := sync.OnceFunc(func() {
		_, err := d.Start(t.Context(), "web")
		must(t, err)
		_, err = d.Watch().Started(t.Context(), r.ID, nil)
		must(t, err)
	})
	d.published.Listen = func(ctx context.Context, p vm.Port) (publish.Socket, error) {
		start()
		return publish.Listen(ctx, p)
	}
	r, err = d.ChangePorts(t.Context(), "web", api.PortsRequest{Add: []vm.Port{chosenPort(80)}})
	must(t, err)
	if s, _ := d.published.Status(r.ID, r.Spec.Ports[0]); !s.Open {
		t.Errorf("of a VM that runs: %+v", s)
	}
	must(t, echo(t, r.Spec.Ports[0]))
}

// TestRestartKeepsPorts has nobody able to take a port while its VM is restarted.
func TestRestartKeepsPorts(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	p := d.publishes("web", chosenPort(80)).Spec.Ports[0]
	events, err := d.Events(t.Context(), "web")
	must(t, err)
	restarted := make(chan error, 1)
	go func() {
		_, err := d.Restart(t.Context(), "web", false, 0, nil)
		restarted <- err
	}()
	for ev := range events {
		if l, err := net.Listen("tcp4", p.Host()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("somebody else could have the port: %v", err)
			_ = l.Close()
		}
		if ev.State == vm.StateRunning {
			break
		}
	}
	must(t, <-restarted)
	must(t, echo(t, p))
}

// TestOrdinaryUser is told what to do about a port that only root may open.
func TestOrdinaryUser(t *testing.T) {
	w := newWorld(t)
	d := w.begin()
	d.published = publish.New(publish.Config{Log: d.Log, Listen: func(context.Context, vm.Port) (publish.Socket, error) { return publish.Socket{}, unix.EACCES }})
	p := chosenPort(80)
	p.HostPort = 80
	_, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Ports: []vm.Port{p}}, nil)
	if vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), "ordinary user") || !strings.Contains(vm.HintOf(err), "ip_unprivileged_port_start=80") {
		t.Errorf("%v; %s", err, vm.HintOf(err))
	}
}
