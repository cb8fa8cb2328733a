package store

import (
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/act"
	"banger/internal/vm"
)

func TestListIsNeverOlderThanAWrite(t *testing.T) {
	s, ctx := open(t), t.Context()
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(ctx, r); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 { // readers that fill the cache all the time
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := s.VMs(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		want := []vm.Want{vm.WantRunning, vm.WantStopped}[i%2]
		if _, err := s.SetWant(ctx, r.ID, want, vm.StateStopping); err != nil {
			t.Fatal(err)
		}
		all, err := s.VMs(ctx)
		if err != nil || len(all) != 1 || all[0].Want != want {
			t.Fatalf("write %d: %+v, %v", i, all, err)
		}
	}
	close(stop)
	wg.Wait()
	all, _ := s.VMs(ctx)
	all[0].Name = "changed by a caller"
	if again, _ := s.VMs(ctx); again[0].Name != "web" {
		t.Error("a caller changed the cache")
	}
}

// seer looks at the database at the moment at which a commit can be seen and its writer has not gone on.
type seer struct{ look func() }

func (s seer) Pass(label string) error {
	if strings.HasSuffix(label, ":rows:recorded") {
		s.look()
	}
	return nil
}

// TestListIsNoOlderThanALook: whoever has seen that a VM is gone must not find it in a list.
func TestListIsNoOlderThanALook(t *testing.T) {
	s := open(t)
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetWant(t.Context(), r.ID, vm.WantGone, vm.StateRemoving); err != nil {
		t.Fatal(err)
	}
	if all, err := s.VMs(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	looked := false
	ctx := act.Watch(t.Context(), seer{func() {
		looked = true
		_, err := s.VM(t.Context(), r.ID)
		all, lerr := s.VMs(t.Context())
		if vm.CodeOf(err) != vm.CodeNotFound || lerr != nil || len(all) != 0 {
			t.Errorf("looked for by itself: %v; listed: %v, %v", err, all, lerr)
		}
	}})
	if err := s.DeleteVM(ctx, r.ID); err != nil || !looked {
		t.Errorf("%v, looked: %v", err, looked)
	}
}

// What an idle daemon gave up is read anew.
func TestTheListIsForgotten(t *testing.T) {
	s := open(t)
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if all, err := s.VMs(t.Context()); err != nil || len(all) != 1 || s.list.Load() == nil {
			t.Errorf("%+v, %v", all, err)
		}
		s.forget()
		if s.list.Load() != nil {
			t.Error("it is kept")
		}
	}
	if !s.idle.Reset(time.Hour) {
		t.Error("nobody would give it up")
	}
}
