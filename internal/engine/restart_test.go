package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

func TestRestart(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	before, ok := w.host.ProcessOf(r.ID)
	if !ok {
		t.Fatal("no process")
	}
	again, err := d.Restart(t.Context(), "web", false, 0, nil)
	must(t, err)
	after, ok := w.host.ProcessOf(r.ID)
	if again.State != vm.StateRunning || !ok || after == before {
		t.Errorf("%s, process %v, before %v", again.State, after, before)
	}
	_, err = d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	_, err = d.Watch().Stopped(t.Context(), r.ID, nil)
	must(t, err)
	if again, err = d.Restart(t.Context(), "web", false, 0, nil); err != nil || again.State != vm.StateRunning {
		t.Errorf("of a stopped one: %s, %v", again.State, err)
	}
	if _, err := d.Restart(t.Context(), "mail", false, 0, nil); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of none: %v", err)
	}
}

// A client that goes away in the middle does not leave the VM stopped.
func TestRestartGoesOn(t *testing.T) {
	w := newWorld(t)
	told := w.slowPowerOff()
	d := w.start()
	r, p := stopping(t, w, d, told)
	events := d.events.subscribe(r.ID)
	defer d.events.end(events)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := d.Restart(ctx, "web", false, time.Minute, nil)
		ended <- err
	}()
	for e := range events.ch { // until it has asked for the stop
		if e.Kind == "state" {
			break
		}
	}
	cancel()
	if err := <-ended; vm.CodeOf(err) != vm.CodeCanceled && !errors.Is(err, context.Canceled) {
		t.Fatalf("a client that went away: %v", err)
	}
	must(t, w.host.PowerOff(p))
	if now, err := d.Wait(t.Context(), "web", api.UntilReady); err != nil || now.ID != r.ID {
		t.Errorf("%v, %v", now.State, err)
	}
}

func TestWait(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	d.run("web", false)
	if _, err := d.Wait(t.Context(), "web", api.UntilReady); err != nil {
		t.Error(err)
	}
	wait := func(until string) <-chan error {
		c := make(chan error, 1)
		go func() {
			_, err := d.Wait(t.Context(), "web", until)
			c <- err
		}()
		return c
	}
	stopped, gone := wait(api.UntilStopped), wait(api.UntilGone)
	_, err := d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	if err := <-stopped; err != nil {
		t.Errorf("stopped: %v", err)
	}
	ready, stopped := wait(api.UntilReady), wait(api.UntilStopped) // one that is stopped has stopped
	if err := <-stopped; err != nil {
		t.Errorf("stopped already: %v", err)
	}
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	if err := <-gone; err != nil {
		t.Errorf("gone: %v", err)
	}
	if err := <-ready; vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("ready, of a VM that goes: %v", err)
	}
	if _, err := d.Wait(t.Context(), "web", api.UntilGone); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of none: %v", err)
	}
	_, err = d.Create(t.Context(), api.CreateRequest{Name: "new"}, nil)
	must(t, err)
	if _, err := d.Wait(t.Context(), "new", "lunch"); vm.CodeOf(err) != vm.CodeInvalid {
		t.Errorf("for lunch: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := d.Wait(short, "new", api.UntilReady); vm.CodeOf(err) != vm.CodeCanceled {
		t.Errorf("for long: %v", err)
	}
}
