package store

import (
	"fmt"
	"slices"
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
