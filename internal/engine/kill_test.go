package engine

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// frozen makes a VM that runs and whose disk is frozen, for which its VMM waits: it does nothing and does not die.
func frozen(t *testing.T) (*world, *daemon, vm.VMRecord) {
	t.Helper()
	w := newWorld(t)
	w.store = &guarded{health: disk.Health{State: disk.StoreOK, HostFree: 100 << 30}}
	d := w.begin()
	d.GuardEvery = 10 * time.Millisecond
	must(t, d.Recover(t.Context()))
	r := d.run("web", false)
	no := func(vmm.Config) bool { return false }
	w.host.Rule(fake.Rules{PowerOff: no, Quit: no, Terminate: no, Kill: w.store.held})
	w.store.set(disk.StoreOK, guardReserve-1)
	d.until(r.ID, "frozen", func(r vm.VMRecord) bool { return strings.Contains(r.Runtime.LastError, "waits") })
	return w, d, r
}

func (g *guarded) want(t *testing.T, calls string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); g.called() != calls; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did %q to the disk, want %q", g.called(), calls)
		}
	}
}

// A VM whose disk is frozen comes to an end, and nothing of what waits is written to the full host.
func TestTheEndOfAFrozenVM(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		w, d, r := frozen(t)
		_, err := d.Stop(t.Context(), "web", true, 0)
		must(t, err)
		r, err = d.Watch().Stopped(t.Context(), r.ID, nil)
		if err != nil || r.Runtime.LastError != "" {
			t.Errorf("%+v, %v", r.Runtime, err)
		}
		w.store.want(t, "freeze abandon")
	})
	t.Run("removed", func(t *testing.T) {
		w, d, r := frozen(t)
		_, err := d.Delete(t.Context(), "web")
		must(t, err)
		d.untilGone(r.ID)
		w.store.want(t, "freeze abandon")
		w.nothingLeft()
	})
	t.Run("stopped", func(t *testing.T) {
		w, d, r := frozen(t)
		if now := d.stop(r, 20*time.Millisecond); !strings.Contains(now.Runtime.LastError, "did not settle its disks") {
			t.Errorf("%+v", now.Runtime)
		}
		w.store.want(t, "freeze abandon")
	})
	t.Run("killed by a daemon that died", func(t *testing.T) {
		w, d, r := frozen(t)
		p, _ := w.host.ProcessOf(r.ID)
		must(t, w.host.Signal(p, unix.SIGKILL))
		d.kill()
		d = w.start()
		_, err := d.Delete(t.Context(), "web")
		must(t, err)
		d.untilGone(r.ID)
		w.store.want(t, "freeze abandon")
	})
}

// While a killed VMM takes its time, the disk that was abandoned for its sake is not frozen again: it would wait for that.
func TestTheGuardLeavesAKilledVMAlone(t *testing.T) {
	w, d, r := frozen(t)
	dies := make(chan struct{})
	w.host.Rule(fake.Rules{Kill: func(vmm.Config) <-chan struct{} { return dies }})
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	w.store.want(t, "freeze abandon")
	for looks := w.store.looked(); w.store.looked() < looks+10; {
		time.Sleep(time.Millisecond)
	}
	w.store.want(t, "freeze abandon")
	close(dies)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// What waits for room goes on when there is some, whatever is wanted of the VM meanwhile.
func TestAStoppingVMIsThawed(t *testing.T) {
	w, d, r := frozen(t)
	p, _ := w.host.ProcessOf(r.ID)
	_, err := d.Stop(t.Context(), "web", false, time.Minute)
	must(t, err)
	w.store.set(disk.StoreOK, 2*guardReserve)
	w.store.want(t, "freeze thaw")
	must(t, w.host.PowerOff(p))
	r, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	if err != nil || r.Runtime.LastError != "" {
		t.Errorf("%+v, %v", r.Runtime, err)
	}
}
