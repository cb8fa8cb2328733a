package engine

import (
	"testing"
	"time"

	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// A guest that died under a VMM that lives is told from one that lives, by who looks; its record says as before what it is.
func TestSilent(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	silent := func(wait time.Duration) bool { return !d.Silent(t.Context(), r, wait).IsZero() }
	began := time.Now()
	if silent(time.Minute) || silent(0) {
		t.Error("a guest that answers is silent")
	}
	w.host.Rule(fake.Rules{Dead: func(vmm.Config) bool { return true }})
	if silent(0) {
		t.Error("it is silent before it had time to answer")
	}
	if since := d.Silent(t.Context(), r, 20*time.Millisecond); since.Before(began) {
		t.Errorf("a dead guest is silent since %v", since)
	}
	a := d.known(r.ID).reached()
	a.inquiry.mu.Lock()
	a.inquiry.since = began.Add(-time.Minute)
	a.inquiry.mu.Unlock()
	if !silent(0) {
		t.Error("a guest that owes an answer for a minute is not silent for who does not wait")
	}
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || d.Seen(now).State != vm.StateRunning || d.Seen(now).Runtime.LastError != "" {
		t.Errorf("%+v, %v", now.Runtime, err)
	}

	_, err := d.Pause(t.Context(), "web")
	must(t, err)
	if silent(0) {
		t.Error("a paused machine's guest owes nothing")
	}
	_, err = d.Resume(t.Context(), "web")
	must(t, err)
	if silent(0) {
		t.Error("it owes what it was asked before the pause")
	}
	if !silent(20 * time.Millisecond) {
		t.Error("it has answered, dead as it is")
	}

	w.host.Rule(fake.Rules{})
	c, err := d.Agent(t.Context(), "web")
	must(t, err)
	_, err = c.Hello(t.Context())
	must(t, err)
	if silent(0) || silent(time.Minute) {
		t.Error("a guest that was heard is silent")
	}
}
