package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"banger/internal/vm"
)

// A number is one VM's as long as its row lives, whatever becomes of the daemon, and no longer.
func TestLeases(t *testing.T) {
	s := open(t)
	taken := map[vm.ID]uint32{}
	create := func(i int, kind string) (uint32, error) {
		id := vm.ID(fmt.Sprintf("%012x", i))
		r, err := s.CreateVM(t.Context(), record(id, fmt.Sprintf("n%d", i)), Range{
			Kind: kind, First: 10, Last: 12, Set: func(r *vm.VMRecord, n uint32) { r.Runtime.VSockCID = n }})
		if err == nil {
			taken[id] = r.Runtime.VSockCID
			if read, rerr := s.VM(t.Context(), id); rerr != nil || read.Runtime.VSockCID != r.Runtime.VSockCID {
				t.Errorf("returned %d, stored %+v, %v", r.Runtime.VSockCID, read.Runtime, rerr)
			}
		}
		return r.Runtime.VSockCID, err
	}
	var got []uint32
	for i := range 3 {
		n, err := create(i, "number")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if !slices.Equal(got, []uint32{10, 11, 12}) {
		t.Errorf("leased %d", got)
	}
	if n, err := create(7, "other"); err != nil || n != 10 {
		t.Errorf("another kind: %d, %v", n, err)
	}
	if _, err := create(3, "number"); vm.CodeOf(err) != vm.CodeConflict || vm.HintOf(err) == "" {
		t.Errorf("all are taken: %v", err)
	}
	if _, err := s.VM(t.Context(), "000000000003"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("the VM without a number has a row: %v", err)
	}
	if _, err := s.SetWant(t.Context(), "000000000001", vm.WantGone, vm.StateRemoving); err != nil {
		t.Fatal(err)
	}
	if _, err := create(4, "number"); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("the number of a VM that is being removed was given away: %v", err)
	}
	if err := s.DeleteVM(t.Context(), "000000000001"); err != nil {
		t.Fatal(err)
	}
	if n, err := create(5, "number"); err != nil || n != 11 {
		t.Errorf("after a removal: %d, %v", n, err)
	}
}

// A VM that was made without one gets a lease later, once, and only for who knows what is wanted of it now.
func TestLeaseVM(t *testing.T) {
	s := open(t)
	want := Range{Kind: "number", First: 10, Last: 11, Set: func(r *vm.VMRecord, n uint32) { r.Runtime.UID = int(n) }}
	if _, err := s.CreateVM(t.Context(), record("000000000000", "with"), want); err != nil {
		t.Fatal(err)
	}
	without, err := s.CreateVM(t.Context(), record("000000000001", "without"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LeaseVM(t.Context(), without.ID, without.Generation+1, want); !errors.Is(err, ErrStale) {
		t.Errorf("of another generation: %v", err)
	}
	for range 2 {
		r, err := s.LeaseVM(t.Context(), without.ID, without.Generation, want)
		if err != nil || r.Runtime.UID != 11 || r.Generation != without.Generation {
			t.Errorf("leased %d, generation %d, %v", r.Runtime.UID, r.Generation, err)
		}
	}
	if r, err := s.VM(t.Context(), without.ID); err != nil || r.Runtime.UID != 11 {
		t.Errorf("stored %d, %v", r.Runtime.UID, err)
	}
	if _, err := s.CreateVM(t.Context(), record("000000000002", "late"), want); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("it was given to another as well: %v", err)
	}
	if _, err := s.LeaseVM(t.Context(), "00000000000f", 1, want); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of no VM: %v", err)
	}
}

// Who begins within its range comes to all of it.
func TestLeasesBeginAnywhere(t *testing.T) {
	s := open(t)
	want := Range{Kind: "number", First: 10, Last: 13, Begin: 12, Set: func(r *vm.VMRecord, n uint32) { r.Runtime.UID = int(n) }}
	for i, n := range []int{12, 13, 10, 11} {
		r, err := s.CreateVM(t.Context(), record(vm.ID(fmt.Sprintf("%012x", i)), fmt.Sprintf("n%d", i)), want)
		if err != nil || r.Runtime.UID != n {
			t.Errorf("leased %d, %v, want %d", r.Runtime.UID, err, n)
		}
	}
	if _, err := s.CreateVM(t.Context(), record("00000000000f", "late"), want); vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "all 4 are taken") {
		t.Errorf("all are taken: %v", err)
	}
}
