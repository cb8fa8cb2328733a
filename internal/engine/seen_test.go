package engine

import (
	"testing"

	"banger/internal/vm"
)

// A VM whose machine has ended is not shown as running while its worker is still at what it held, neither by the daemon
// that saw it end nor by the next one.
func TestSeen(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart bool
	}{{"same daemon", false}, {"next daemon", true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("a", false)
			if got := d.Seen(r).Runtime.State; got != vm.StateRunning {
				t.Fatalf("a living VM is %s", got)
			}
			process, _ := w.host.ProcessOf(r.ID)
			w.faults.detaching, w.faults.mayDetach = make(chan struct{}), make(chan struct{})
			if c.restart {
				d.kill()
				must(t, w.host.Exit(process, "signal: killed"))
				d = w.begin()
				go func() { _ = d.Recover(t.Context()) }()
			} else {
				must(t, w.host.Exit(process, "signal: killed"))
			}
			<-w.faults.detaching
			r, err := d.Store.VM(t.Context(), r.ID)
			if err != nil || r.Runtime.State != vm.StateRunning {
				t.Errorf("the record says %s, %v: it should not yet know", r.Runtime.State, err)
			}
			if got := d.Seen(r); got.Runtime.State != vm.StateStopping || got.State != vm.StateStopping { // the latter is what is shown
				t.Errorf("shown as %s, %s", got.State, got.Runtime.State)
			}
			w.faults.mayDetach <- struct{}{}
			d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.Runtime.State == vm.StateStopped })
		})
	}
}
