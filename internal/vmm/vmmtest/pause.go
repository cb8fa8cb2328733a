package vmmtest

import (
	"context"
	"testing"
	"time"

	"banger/internal/vmm"
)

// pauseAndResume: either may be asked for twice, and neither ends the machine. A VMM may take a moment to serve its API.
func pauseAndResume(t *testing.T, e Env) {
	p, ok := e.Driver.(vmm.Pauser)
	if !ok {
		t.Skipf("driver %s cannot pause machines", e.Driver.Name())
	}
	c := e.Config(t)
	id, _ := launch(t, e, c)
	served := func(do func(context.Context, vmm.Ref) error) error {
		for end := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
			if err := do(t.Context(), c.Ref()); err == nil || time.Now().After(end) {
				return err
			}
		}
	}
	if err := served(p.Pause); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if err := p.Pause(t.Context(), c.Ref()); err != nil {
		t.Errorf("pause again: %v", err)
	}
	for range 2 {
		if err := p.Resume(t.Context(), c.Ref()); err != nil {
			t.Errorf("resume: %v", err)
		}
	}
	if !e.Processes.Alive(id) {
		t.Error("it ended")
	}
	other := e.Config(t)
	if err := p.Resume(t.Context(), other.Ref()); err == nil {
		t.Error("resumed what was never launched")
	}
}
