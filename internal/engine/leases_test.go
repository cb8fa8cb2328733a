package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"banger/internal/vm"
)

// A VM that was made while jails were off has one from its next start on, as "doctor" promises, and a user of its own.
func TestJailFromTheNextStartOn(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	var made []vm.VMRecord
	for i := range 3 {
		made = append(made, d.run(fmt.Sprintf("v%d", i), false))
	}
	launches := len(w.host.Launched())
	unjailed := func(want ...string) {
		t.Helper()
		if got, err := d.Unjailed(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("outside jails are %q, %v, want %q", got, err, want)
		}
	}
	unjailed() // no VM has a jail
	d.kill()

	w.jails = true
	d = w.start()
	unjailed("v0", "v1", "v2")
	if n := len(w.host.Launched()); n != launches {
		t.Fatalf("%d launches: VMs that ran were started anew", n-launches)
	}
	again := func(name string) (vm.VMRecord, error) {
		t.Helper()
		r, err := d.Stop(t.Context(), name, false, 0)
		must(t, err)
		_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
		must(t, err)
		_, err = d.Start(t.Context(), name)
		must(t, err)
		return d.Watch().Started(t.Context(), r.ID, nil)
	}
	for i, want := range []int{900000, 900001} {
		for range 2 { // and keeps it
			r, err := again(made[i].Name)
			must(t, err)
			c := w.host.Launched()[len(w.host.Launched())-1]
			if c.ID != r.ID || c.UID != want || r.Runtime.UID != want {
				t.Errorf("%s runs as user %d, recorded as %d, want %d", r.Name, c.UID, r.Runtime.UID, want)
			}
		}
	}
	unjailed("v2")
	launches = len(w.host.Launched())
	if _, err := again(made[2].Name); vm.CodeOf(err) != vm.CodeConflict || len(w.host.Launched()) != launches {
		t.Errorf("no user is free: %v, %d launches", err, len(w.host.Launched())-launches)
	}
	unjailed() // it is stopped
	_, err := d.Delete(t.Context(), made[0].Name)
	must(t, err)
	must(t, d.Watch().Gone(context.WithoutCancel(t.Context()), made[0].ID, nil))
	_, err = d.Start(t.Context(), made[2].Name)
	must(t, err)
	r, err := d.Watch().Started(t.Context(), made[2].ID, nil)
	if err != nil || r.Runtime.UID != 900000 {
		t.Errorf("after one became free: user %d, %v", r.Runtime.UID, err)
	}
}
