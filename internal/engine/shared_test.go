package engine

import (
	"context"
	"sync"
	"testing"
	"time"

	"banger/internal/network"
	"banger/internal/network/none"
	"banger/internal/vm"
)

// sharing is a network whose VMs share something: it remembers whom it was last made for.
type sharing struct {
	network.Driver

	mu    sync.Mutex
	ports []network.Port
}

var _ network.Applier = (*sharing)(nil)

func (s *sharing) Apply(_ context.Context, ports []network.Port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = ports
	return nil
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
