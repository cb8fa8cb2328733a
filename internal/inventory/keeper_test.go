package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// host is a kind in memory. It fails the test when something is removed that must not be.
type host struct {
	t       *testing.T
	rank    Rank
	objects []Object
	err     error                  // of List
	stuck   map[string]error       // of Remove
	removed *[]string              // in their order, of all kinds
	listed  func(h *host, nth int) // called in each look, before it
	looks   int
}

func (h *host) Rank() Rank { return h.rank }

func (h *host) List(context.Context) ([]Object, error) {
	h.looks++
	if h.listed != nil {
		h.listed(h, h.looks)
	}
	return slices.Clone(h.objects), h.err
}

func (h *host) Remove(_ context.Context, o Object) error {
	if o.Proof == "" || o.Busy != "" {
		h.t.Errorf("removed %s %s, which is not proven or in use", o.Kind, o.Name)
	}
	if err := h.stuck[o.Name]; err != nil {
		return err
	}
	*h.removed = append(*h.removed, o.Name)
	h.objects = slices.DeleteFunc(h.objects, func(x Object) bool { return x.key() == o.key() })
	return nil
}

func keeper(rows func() []vm.VMRecord, kinds ...Kind) *Keeper {
	return New(Config{
		Kinds:   kinds,
		Records: func(context.Context) ([]vm.VMRecord, error) { return rows(), nil },
		Born:    func() time.Time { return time.Time{} },
		Sweep:   func(context.Context, vm.ID) error { return errors.New("nobody sweeps") },
	})
}

func everything(string, string) bool { return true }

func names(outcomes []Outcome) (out []string) {
	for _, o := range outcomes {
		out = append(out, fmt.Sprintf("%s %v", o.Name, o.Removed))
	}
	return out
}

// Holders go before what they hold, whatever the order of the kinds.
func TestFixInOrder(t *testing.T) {
	var removed []string
	kind := func(rank Rank, objects ...Object) *host {
		for i := range objects {
			objects[i].Kind = fmt.Sprint(rank)
		}
		return &host{t: t, rank: rank, objects: objects, removed: &removed}
	}
	home := kind(Homes, Object{Name: "home", VM: gone, Proof: "p"}, Object{Name: "web's", VM: web, Proof: "p"}, Object{Name: "another's", VM: "00000000000e", Doubt: "?"})
	k := keeper(records, home, kind(Loops, Object{Name: "loop", VM: gone, Proof: "p"}), kind(Devices, Object{Name: "dm", VM: gone, Proof: "p"}),
		kind(Processes, Object{Name: "pid", VM: gone, Proof: "p"}), kind(Networks, Object{Name: "tap", VM: gone, Proof: "p"}, Object{Name: "kept", Proof: "p"}))
	got, err := k.Fix(t.Context(), func(_, name string) bool { return name != "kept" })
	if err != nil || !slices.Equal(removed, []string{"pid", "tap", "dm", "loop", "home"}) || len(got) != 5 {
		t.Errorf("%q removed, outcomes %q, %v", removed, names(got), err)
	}
	if got, err = k.Fix(t.Context(), everything); err != nil || !slices.Equal(names(got), []string{"kept true"}) {
		t.Errorf("the second time: %q, %v", names(got), err)
	}
	if len(home.objects) != 2 {
		t.Errorf("left: %+v", home.objects)
	}
}

// What is kept goes when its VM is named, and no other's with it.
func TestFixDiscards(t *testing.T) {
	var removed []string
	homes := &host{t: t, rank: Homes, removed: &removed, objects: []Object{
		{Kind: "directory", Name: "c", VM: gone, Proof: "p", Holds: "disks"}, {Kind: "directory", Name: "d", VM: "00000000000d", Proof: "p", Holds: "disks"},
		{Kind: "directory", Name: "b", VM: db, Proof: "p", Holds: "disks"}}}
	k := keeper(records, homes)
	if got, err := k.Fix(t.Context(), everything); err != nil || len(removed) != 0 || !slices.Equal(names(got), []string{"c false", "d false"}) {
		t.Fatalf("removed %q, %q, %v", removed, names(got), err)
	}
	got, err := k.Fix(t.Context(), everything, gone, db)
	if err != nil || !slices.Equal(removed, []string{"c"}) || !slices.Equal(names(got), []string{"c true", "d false"}) || got[1].Kept == "" {
		t.Errorf("removed %q, %+v, %v", removed, got, err)
	}
}

// What could not be removed may need what it stands on, and its directory names it.
func TestFixStopsAtWhatStays(t *testing.T) {
	var removed []string
	other := vm.ID("00000000000d")
	processes := &host{t: t, rank: Processes, removed: &removed, stuck: map[string]error{"1": errors.New("it does not die")},
		objects: []Object{{Kind: "process", Name: "1", VM: gone, Proof: "p"}, {Kind: "process", Name: "2", VM: other, Proof: "p"}}}
	homes := &host{t: t, rank: Homes, removed: &removed, objects: []Object{{Kind: "directory", Name: "c", VM: gone, Proof: "p"}, {Kind: "directory", Name: "d", VM: other, Proof: "p"}}}
	got, err := keeper(records, homes, processes).Fix(t.Context(), everything)
	if err != nil || !slices.Equal(removed, []string{"2", "d"}) {
		t.Fatalf("removed %q, %v", removed, err)
	}
	if len(got) != 4 || got[0].Err == nil || got[2].Removed || !strings.Contains(got[2].Kept, "process") {
		t.Errorf("%+v", got)
	}
}

// A VM that is deleted while the inventory is taken loses its objects and then its record: it is no orphan. One that is
// made meanwhile has its record first.
func TestListBesideALivingDaemon(t *testing.T) {
	rows := records()
	var removed []string
	kind := &host{t: t, rank: Networks, removed: &removed, objects: []Object{{Kind: "tap", Name: "old", VM: gone, Proof: "p"}}}
	kind.listed = func(h *host, nth int) {
		if nth == 2 { // the first look saw it, and its record was gone when that was asked for; so is it now
			h.objects = []Object{{Kind: "tap", Name: "new", VM: "00000000000d", Proof: "p"}}
			rows = append(rows, vm.VMRecord{ID: "00000000000d", Name: "new", Want: vm.WantRunning})
		}
	}
	k := keeper(func() []vm.VMRecord { return rows }, kind)
	if got, err := k.List(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := k.Fix(t.Context(), everything); err != nil || len(got) != 0 || len(removed) != 0 {
		t.Errorf("removed %q, %v: %v", removed, got, err)
	}
}

// Half a look, or no records: nothing is removed.
func TestNothingIsRemovedInTheDark(t *testing.T) {
	var removed []string
	orphan := Object{Kind: "tap", Name: "t", VM: gone, Proof: "p"}
	sound := &host{t: t, rank: Networks, removed: &removed, objects: []Object{orphan}}
	blind := &host{t: t, rank: Processes, removed: &removed, err: errors.New("/proc is not mounted")}
	k := keeper(records, sound, blind)
	if got, err := k.List(t.Context()); err == nil || len(got) != 1 || got[0].Status != Orphan {
		t.Errorf("half a look: %+v, %v", got, err)
	}
	if _, err := k.Fix(t.Context(), everything); err == nil || !strings.Contains(err.Error(), "/proc is not mounted") {
		t.Errorf("%v", err)
	}
	k = keeper(records, sound)
	k.Records = func(context.Context) ([]vm.VMRecord, error) {
		return nil, vm.Errorf(vm.CodeCorrupt, "the database is corrupt")
	}
	got, err := k.List(t.Context())
	if vm.CodeOf(err) != vm.CodeCorrupt || len(got) != 0 {
		t.Errorf("without records: %+v, %v", got, err)
	}
	if _, err := k.Fix(t.Context(), everything); vm.CodeOf(err) != vm.CodeCorrupt {
		t.Errorf("without records: %v", err)
	}
	if len(removed) != 0 {
		t.Errorf("removed %q", removed)
	}
}

// What a run left of a VM with a record is its worker's to take down, once.
func TestFixOfAVMWithARecordIsItsWorkers(t *testing.T) {
	var removed []string
	kind := &host{t: t, rank: Networks, removed: &removed, objects: []Object{
		{Kind: "tap", Name: "t", VM: db, Run: true, Proof: "p"}, {Kind: "cgroup", Name: "c", VM: db, Run: true, Proof: "p"}}}
	k := keeper(records, kind)
	var swept []vm.ID
	k.Sweep = func(_ context.Context, id vm.ID) error { swept = append(swept, id); return nil }
	got, err := k.Fix(t.Context(), everything)
	if err != nil || !slices.Equal(swept, []vm.ID{db}) || len(removed) != 0 || !slices.Equal(names(got), []string{"c true", "t true"}) {
		t.Errorf("swept %q, removed %q, outcomes %q, %v", swept, removed, names(got), err)
	}
	k.Sweep = func(context.Context, vm.ID) error { return errors.New("the tap is held") }
	if got, err = k.Fix(t.Context(), everything); err != nil || got[0].Err == nil || got[1].Removed {
		t.Errorf("a failed sweep: %+v, %v", got, err)
	}
}

func TestAgain(t *testing.T) {
	o := Object{Kind: "tap", Name: "t", VM: gone, Proof: "p"}
	kind := &host{t: t}
	for name, c := range map[string]struct {
		now   []Object
		there bool
		ok    bool
	}{
		"the same":        {[]Object{o}, true, true},
		"gone":            {nil, false, true},
		"another VM's":    {[]Object{{Kind: "tap", Name: "t", VM: web, Proof: "p"}}, false, true},
		"proven no more":  {[]Object{{Kind: "tap", Name: "t", VM: gone, Doubt: "?"}}, true, false},
		"in use":          {[]Object{{Kind: "tap", Name: "t", VM: gone, Proof: "p", Busy: "!"}}, true, false},
		"of another kind": {[]Object{{Kind: "bridge", Name: "t", VM: gone, Proof: "p"}}, false, true},
	} {
		kind.objects = c.now
		if _, there, err := Again(t.Context(), kind, o); there != c.there || (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", name, there, err)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		path, dir, rest string
		ok              bool
	}{
		{"/r/vms/a/system", "/r/vms", "a/system", true},
		{"/r/vms", "/r/vms", "", false},
		{"/r/vms2/a", "/r/vms", "", false},
		{"/r/vms/../x", "/r/vms", "", false},
		{"", "/r/vms", "", false},
	} {
		if rest, ok := Below(c.path, c.dir); ok != c.ok || ok && rest != c.rest {
			t.Errorf("%s in %s: %q, %v", c.path, c.dir, rest, ok)
		}
	}
}
