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
	paused := func(want bool) {
		t.Helper()
		if got, err := p.Paused(t.Context(), c.Ref()); err != nil || got != want {
			t.Errorf("paused: %v, %v; want %v", got, err, want)
		}
		if got, err := p.Runs(t.Context(), c.Ref()); err != nil || got == want {
			t.Errorf("runs: %v, %v; want %v", got, err, !want)
		}
		if h, ok := e.Driver.(vmm.Halter); ok {
			if got, err := h.OutOfSpace(t.Context(), c.Ref()); err != nil || got {
				t.Errorf("waits for room: %v, %v; paused: %v", got, err, want)
			}
		}
	}
	if err := served(p.Pause); err != nil {
		t.Fatalf("pause: %v", err)
	}
	paused(true)
	if err := p.Pause(t.Context(), c.Ref()); err != nil {
		t.Errorf("pause again: %v", err)
	}
	paused(true)
	for range 2 {
		if err := p.Resume(t.Context(), c.Ref()); err != nil {
			t.Errorf("resume: %v", err)
		}
	}
	paused(false)
	if !e.Processes.Alive(id) {
		t.Error("it ended")
	}
	other := e.Config(t)
	if err := p.Resume(t.Context(), other.Ref()); err == nil {
		t.Error("resumed what was never launched")
	}
	if _, err := p.Paused(t.Context(), other.Ref()); err == nil {
		t.Error("what was never launched says whether it is paused")
	}
	if _, err := p.Runs(t.Context(), other.Ref()); err == nil {
		t.Error("what was never launched says whether it runs")
	}
	if h, ok := e.Driver.(vmm.Halter); ok {
		if _, err := h.OutOfSpace(t.Context(), other.Ref()); err == nil {
			t.Error("what was never launched says whether it waits for room")
		}
	}
}
