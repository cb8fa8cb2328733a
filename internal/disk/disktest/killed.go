package disktest

import (
	"errors"
	"path/filepath"
	"testing"

	"banger/internal/act"
)

// halt is what happens to a daemon that is killed at a point: it does nothing more, whoever tries. Deferred functions
// run, as they do in no killed process; but they act through points too.
type halt struct {
	at     int // 0 = never
	passed int
}

var errDead = errors.New("killed")

func (h *halt) Pass(string) error {
	h.passed++
	if h.at != 0 && h.passed >= h.at {
		return errDead
	}
	return nil
}

// probeKilled ends probes at every point that they pass. The sweep of the next daemon leaves nothing of them.
func (s suite) probeKilled(t *testing.T) {
	o := s.overlay(t)
	imageDir, vmDir := filepath.Dir(o.Base), filepath.Dir(o.Path)
	count := &halt{}
	if err := s.d.Probe(act.Watch(t.Context(), count), imageDir, vmDir); err != nil {
		t.Fatal(err)
	}
	for at := range count.passed {
		_ = s.another().Probe(act.Watch(t.Context(), &halt{at: at + 1}), imageDir, vmDir)
		if err := s.another().Sweep(t.Context(), []string{imageDir}, vmDir); err != nil {
			t.Errorf("killed at point %d: %v", at+1, err)
		}
		if got := list(t, imageDir); len(got) != 1 {
			t.Errorf("killed at point %d: the image directory holds %v", at+1, got)
		}
		if got := list(t, vmDir); len(got) != 0 {
			t.Errorf("killed at point %d: the VM directory holds %v", at+1, got)
		}
	}
	if count.passed < 2 {
		t.Errorf("a probe passes %d points", count.passed)
	}
}
