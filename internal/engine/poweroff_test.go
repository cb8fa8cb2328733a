package engine

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// stop asks for an orderly stop and returns the record when it is over.
func (d *daemon) stop(r vm.VMRecord, grace time.Duration) vm.VMRecord {
	d.t.Helper()
	_, err := d.Stop(d.t.Context(), r.Name, false, grace)
	must(d.t, err)
	r, err = d.Watch().Stopped(d.t.Context(), r.ID, nil)
	must(d.t, err)
	return r
}

// told is the text with which a stage of the VM will fail; empty when it ends well.
func (d *daemon) told(r vm.VMRecord, stage string) <-chan string {
	events := d.events.subscribe(r.ID)
	text := make(chan string, 1)
	go func() {
		defer d.events.end(events)
		for e := range events.ch {
			if e.Stage == stage && e.Status != "begin" {
				text <- e.Text
				return
			}
		}
		text <- ""
	}()
	return text
}

// grace bounds a guest's processes. A guest that says it is writing its disks is left to it, and no error is told of.
func TestStopWaitsForTheDisks(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	order := make(chan string, 10)
	asked := atomic.Int32{}
	quits := atomic.Int32{}
	w.host.Rule(fake.Rules{
		Sync: func(vmm.Config) { order <- "sync" },
		PowerOff: func(vmm.Config) bool {
			order <- "power off"
			return false // not at once
		},
		Ending: func(vmm.Config) string {
			switch n := asked.Add(1); {
			case n == 1:
				return "" // before anything was asked of it
			case n < 4:
				return guest.EndingDisks
			}
			go func() { _ = w.host.PowerOff(p) }()
			return guest.EndingDisks
		},
		Quit: func(vmm.Config) bool { quits.Add(1); return true },
	})
	d.stopWaits.look = 20 * time.Millisecond
	now := d.stop(r, 20*time.Millisecond)
	if now.State != vm.StateStopped || now.Runtime.LastError != "" || quits.Load() != 0 {
		t.Errorf("%+v; told to quit %d times", now.Runtime, quits.Load())
	}
	if len(order) != 2 || <-order != "sync" || <-order != "power off" {
		t.Error("want one sync, then the power-off")
	}
}

// What ended without the guest's help may have lost data: the record says so, until the VM runs again.
func TestStopTellsOfUnsettledDisks(t *testing.T) {
	t.Parallel()
	no := func(vmm.Config) bool { return false }
	forever := func(vmm.Config) string { return guest.EndingDisks }
	silence := func(vmm.Config) string { <-t.Context().Done(); return "" }
	for name, tt := range map[string]struct {
		rules fake.Rules
		words string
	}{
		"the guest ignores the power-off": {fake.Rules{PowerOff: no}, "did not settle its disks"},
		"the VMM ignores the quit":        {fake.Rules{PowerOff: no, Quit: no}, "did not settle its disks"},
		"the disks are never done":        {fake.Rules{PowerOff: no, Ending: forever}, "still writing"},
		"nobody answers":                  {fake.Rules{PowerOff: no, Ending: silence}, "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			w.host.Rule(tt.rules)
			d.stopWaits = stopWaits{answer: 10 * time.Second, sync: time.Second, settle: 50 * time.Millisecond, look: 10 * time.Millisecond}
			if name == "nobody answers" {
				d.stopWaits.answer = 50 * time.Millisecond
			}
			told := d.told(r, "stop")
			now := d.stop(r, 20*time.Millisecond)
			if text := <-told; !strings.Contains(text, tt.words) {
				t.Errorf("who waited was told %q", text)
			}
			if now.State != vm.StateStopped || !strings.Contains(now.Runtime.LastError, tt.words) || now.Runtime.LastErrorAt.IsZero() {
				t.Errorf("%+v", now.Runtime)
			}
			w.host.Rule(fake.Rules{})
			_, err := d.Start(t.Context(), "web")
			must(t, err)
			now, err = d.Watch().Started(t.Context(), r.ID, nil)
			must(t, err)
			if now.Runtime.LastError != "" {
				t.Errorf("running, and still: %q", now.Runtime.LastError)
			}
		})
	}
}

// A machine that breaks while it writes its disks did not end well, whoever wanted it to end.
func TestStopTellsOfABrokenVMM(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	w.host.Rule(fake.Rules{PowerOff: func(vmm.Config) bool { go func() { _ = w.host.Exit(p, "signal: killed") }(); return false }})
	if now := d.stop(r, time.Second); !strings.Contains(now.Runtime.LastError, "killed") {
		t.Errorf("%+v", now.Runtime)
	}
}

// A guest that was still booting has nothing to settle: that it was stopped is no error.
func TestStopOfABootingGuestIsNoError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return nil }})
	d.stopWaits.answer = 20 * time.Millisecond
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	waitForProcess(t, w, r.ID)
	if now := d.stop(r, 20*time.Millisecond); now.State != vm.StateStopped || now.Runtime.LastError != "" {
		t.Errorf("%+v", now.Runtime)
	}
}
