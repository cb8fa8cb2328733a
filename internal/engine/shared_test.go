package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/network"
	"banger/internal/network/none"
	"banger/internal/vm"
)

// sharing is a network whose VMs share something: it remembers whom it was last made for.
type sharing struct {
	network.Driver

	mu    sync.Mutex
	ports []network.Port
	fault error // what Apply says
}

var _ network.Applier = (*sharing)(nil)

func (s *sharing) Apply(_ context.Context, ports []network.Port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = ports
	return s.fault
}

func (s *sharing) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

func (s *sharing) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ports)
}

// Of what VMs share nothing stays when the last ones end at once, each seeing the other still there.
func TestNothingSharedStaysBehindTheLastTwo(t *testing.T) {
	w := newWorld(t)
	w.shared = &sharing{Driver: none.New()}
	d := w.start()
	a, b := d.run("a", false), d.run("b", false)
	if n := w.shared.count(); n != 2 {
		t.Errorf("made for %d ports, want 2", n)
	}
	d.kill()
	w.host.Reboot()
	d = w.start()
	for _, r := range []vm.VMRecord{a, b} {
		d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	}
	for end := time.Now().Add(10 * time.Second); w.shared.count() != 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("made for %d ports when both had ended", w.shared.count())
		}
	}
}

// A fault of the network is none of the channel's to the guest: a VM that runs is reached, its record tells of the fault, and
// when that has gone the network is whole with no command.
func TestAdoptedWithoutItsNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shared = &sharing{Driver: none.New()}
	d := w.start()
	r := d.run("web", false)
	d.kill()
	w.shared.breaks(vm.Errorf(vm.CodeConflict, "port 53 is taken").WithHint("free it"))
	d = w.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := d.Agent(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	now := d.until(r.ID, "the fault to be shown", func(r vm.VMRecord) bool { return strings.HasPrefix(r.Runtime.LastError, netFault) })
	if e := now.Runtime.LastError; !strings.Contains(e, "port 53 is taken") || !strings.Contains(e, "free it") || now.State != vm.StateRunning {
		t.Errorf("%s: %s", now.State, e)
	}
	if _, told, err := d.Rename(ctx, "web", "shop"); err != nil || !told {
		t.Errorf("renamed meanwhile: told %v, %v", told, err)
	}
	w.shared.breaks(nil)
	now = d.until(r.ID, "the network to be whole", func(r vm.VMRecord) bool { return r.Runtime.LastError == "" })
	if !d.Observe(now).Ready {
		t.Error("the guest is not reached any more")
	}

	w.shared.breaks(errors.New("port 53 is taken"))
	d.known(r.ID).networkMayBeBroken()
	d.until(r.ID, "another fault to be shown", func(r vm.VMRecord) bool { return strings.HasPrefix(r.Runtime.LastError, netFault) })
	w.shared.breaks(nil)
	_, err := d.Stop(ctx, "shop", false, 0)
	must(t, err)
	if now, err = d.Watch().Stopped(ctx, r.ID, nil); err != nil || now.Runtime.LastError != "" {
		t.Errorf("the fault of a network outlives the run: %+v, %v", now.Runtime, err)
	}
}

// A first start takes a whole network.
func TestNoStartWithoutItsNetwork(t *testing.T) {
	w := newWorld(t)
	w.shared = &sharing{Driver: none.New()}
	d := w.start()
	other := d.run("other", false)
	w.shared.breaks(fmt.Errorf("%w: port 53 is taken", network.ErrUnsettled))
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	if _, err := d.Watch().Started(t.Context(), r.ID, nil); err == nil || !strings.Contains(err.Error(), "port 53") {
		t.Errorf("started: %v", err)
	}
	d.until(r.ID, "the failed start to be over", func(r vm.VMRecord) bool { return r.State == vm.StateError && r.Runtime.Attempts == 0 })
	if !d.Observe(other).Ready {
		t.Error("the other VM is not reached any more")
	}
}

// What other VMs need of a network holds up nobody who leaves it: those are told, and have it mended. What is left of the VM
// itself does.
func TestStopBesideABrokenNetwork(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		fault error
		ends  bool
	}{
		"others lack something":  {fmt.Errorf("%w: port 53 is taken", network.ErrUnsettled), true},
		"its own rules may stay": {errors.New("nft: no"), false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.shared = &sharing{Driver: none.New()}
			d := w.start()
			a, b, c2 := d.run("a", false), d.run("b", false), d.run("c", false)
			w.shared.breaks(c.fault)
			_, err := d.Stop(t.Context(), "b", true, 0)
			must(t, err)
			_, err = d.Delete(t.Context(), "c")
			must(t, err)
			if _, err := d.Watch().Stopped(t.Context(), b.ID, nil); (err == nil) != c.ends {
				t.Errorf("stop: %v", err)
			}
			if err := d.Watch().Gone(t.Context(), c2.ID, nil); (err == nil) != c.ends {
				t.Errorf("delete: %v", err)
			}
			if c.ends {
				d.until(a.ID, "the fault to be shown", func(r vm.VMRecord) bool { return strings.Contains(r.Runtime.LastError, "port 53") })
			}
			w.shared.breaks(nil)
			d.until(b.ID, "its end", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
			d.untilAbsent(c2.ID)
			now := d.until(a.ID, "the network to be whole", func(r vm.VMRecord) bool { return r.Runtime.LastError == "" })
			if n := w.shared.count(); n != 1 || !d.Observe(now).Ready {
				t.Errorf("made for %d ports, ready %v", n, d.Observe(now).Ready)
			}
		})
	}
}
