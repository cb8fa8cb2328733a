package hold

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// What is held is not taken, and who comes while it is taken waits.
func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Set
		one, err := h.Hold(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		two, err := h.Hold(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		one()
		if _, ok := h.Take("a"); ok {
			t.Error("taken from under a holder")
		}
		if done, ok := h.Take("b"); !ok {
			t.Error("another key was refused")
		} else {
			done()
		}
		two()
		done, ok := h.Take("a")
		if !ok {
			t.Fatal("what nobody holds was refused")
		}
		if _, ok := h.Take("a"); ok {
			t.Error("taken twice")
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Hold(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("a wait that was given up: %v", err)
		}
		held := false
		go func() {
			release, err := h.Hold(context.Background(), "a")
			if held = err == nil; held {
				release()
			}
		}()
		synctest.Wait()
		if held {
			t.Error("held while it was taken")
		}
		done()
		synctest.Wait()
		if !held {
			t.Error("not held when it was free again")
		}
		if len(h.users) != 0 || len(h.taken) != 0 {
			t.Errorf("kept: %v, %v", h.users, h.taken)
		}
	})
}
