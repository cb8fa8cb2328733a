package engine

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/vm"
)

// However slow its reader, a wait tells all that led to its end.
func TestWatchTellsEverything(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	watch, other := d.Watch(), d.Watch()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	d.run("mail", false)
	d.until(r.ID, "a start that ended before anyone waited for it", func(r vm.VMRecord) bool { return r.State == vm.StateRunning })
	var told []string
	_, err = watch.Started(t.Context(), r.ID, func(e vm.Event) {
		if e.Kind == "stage" {
			told = append(told, e.Name+" "+e.Stage+" "+e.Status)
		}
	})
	must(t, err)
	want := []string{"web disk begin", "web disk end", "web boot begin", "web boot end", "web agent begin", "web agent end"}
	if !slices.Equal(told, want) {
		t.Errorf("told %s", strings.Join(told, ", "))
	}
	other.Stop()
	other.Stop()
	if n := len(d.events.subs); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// Who waits for a VM that somebody else removes is told so by its name.
func TestAWaitForAVMThatIsRemoved(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	_, err := d.Watch().until(t.Context(), r.ID, nil, func(r vm.VMRecord) (bool, error) {
		if r.Want == vm.WantRunning { // it waits
			_, err := d.Delete(t.Context(), "web")
			return false, err
		}
		return false, nil
	})
	if vm.CodeOf(err) != vm.CodeNotFound || !strings.Contains(err.Error(), "VM web was removed meanwhile") {
		t.Errorf("%v", err)
	}
}

// Who follows all VMs is told by name which of them is gone: the record cannot be asked any more.
func TestGoneHasAName(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	events, err := d.Events(t.Context(), "")
	must(t, err)
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	for e := range events {
		if e.Kind == "gone" {
			if e.VM != r.ID || e.Name != "web" {
				t.Errorf("%+v", e)
			}
			return
		}
	}
	t.Error("nobody told that it is gone")
}
