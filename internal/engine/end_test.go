package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

func TestTheVMMDies(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	p, _ := w.host.ProcessOf(r.ID)
	must(t, w.host.Signal(p, 9))
	now := d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	if !strings.Contains(now.Runtime.LastError, "killed") || exists(w.paths.VMRun(r.ID)) {
		t.Errorf("%+v", now)
	}
	if _, err := d.Agent(t.Context(), "web"); vm.CodeOf(err) != vm.CodeNotRunning || !strings.Contains(err.Error(), "killed") {
		t.Errorf("agent of a stopped VM: %v", err)
	}
	r = func() vm.VMRecord {
		_, err := d.Start(t.Context(), "web")
		must(t, err)
		r, err := d.Watch().Started(t.Context(), r.ID, nil)
		must(t, err)
		return r
	}()
	p, _ = w.host.ProcessOf(r.ID)
	must(t, w.host.PowerOff(p))
	now = d.until(r.ID, "stopped", func(r vm.VMRecord) bool { return r.State == vm.StateStopped })
	if now.Runtime.LastError != "" {
		t.Errorf("a guest that powered itself off is no error: %q", now.Runtime.LastError)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.start()
	for name, rules := range map[string]fake.Rules{
		"launch refused":    {Launch: func(vmm.Config) error { return errors.New("no such luck") }},
		"configure refused": {Configure: func(vmm.Config, fake.GuestConfigure) error { return errors.New("no such luck") }},
	} {
		t.Run(name, func(t *testing.T) {
			w.host.Rule(rules)
			defer w.host.Rule(fake.Rules{})
			r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
			must(t, err)
			_, err = d.Watch().Started(t.Context(), r.ID, nil)
			if err == nil || !strings.Contains(err.Error(), "no such luck") {
				t.Errorf("error %v", err)
			}
			now := d.until(r.ID, "error", func(r vm.VMRecord) bool { return r.State == vm.StateError })
			if now.Want != vm.WantStopped || len(w.host.Running()) != 0 || exists(w.paths.VMRun(r.ID)) {
				t.Errorf("%+v, running %v", now, w.host.Running())
			}
			_, err = d.Delete(t.Context(), r.Name)
			must(t, err)
			d.untilGone(r.ID)
		})
	}
	t.Run("its VMM dies while the guest boots", func(t *testing.T) {
		w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return nil }})
		defer w.host.Rule(fake.Rules{})
		r, err := d.Create(t.Context(), api.CreateRequest{Start: true, AutoRemove: true}, nil)
		must(t, err)
		result := make(chan error, 1)
		go func() { _, err := d.Watch().Started(t.Context(), r.ID, nil); result <- err }()
		p := waitForProcess(t, w, r.ID)
		must(t, w.host.Exit(p, "exit status 1"))
		if err := <-result; err == nil || !strings.Contains(err.Error(), "exit status 1") {
			t.Errorf("error %v", err)
		}
		d.untilGone(r.ID) // made with --rm
	})
	w.nothingLeft()
}

func TestStopWhileStarting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return nil }})
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	waitForProcess(t, w, r.ID)
	_, err = d.Stop(t.Context(), r.Name, true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	_, err = d.Delete(t.Context(), r.Name)
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

func TestStopInsists(t *testing.T) {
	t.Parallel()
	no := func(vmm.Config) bool { return false }
	for name, rules := range map[string]fake.Rules{
		"the guest ignores it":              {PowerOff: no},
		"the guest and the VMM ignore it":   {PowerOff: no, Quit: no, Terminate: no},
		"a hung guest answers nothing more": {PowerOff: no, Quit: no},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			d := w.start()
			r := d.run("web", false)
			w.host.Rule(rules)
			_, err := d.Stop(t.Context(), "web", false, 50*time.Millisecond)
			must(t, err)
			_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
			must(t, err)
			if len(w.host.Running()) != 0 {
				t.Error("it still runs")
			}
		})
	}
}
