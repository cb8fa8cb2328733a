package crashtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// An intent is what somebody else asks for of a VM while its worker is at something.
type intent struct {
	name string
	ask  func(r *run) error
	kept func(v vm.VMRecord, there bool) bool // once all is quiet
}

var (
	startIt = intent{"start", func(r *run) error {
		_, err := r.daemon.Engine.Start(context.Background(), web)
		return err
	}, func(v vm.VMRecord, there bool) bool { return there && v.Want == vm.WantRunning }}
	stopIt = intent{"stop", func(r *run) error {
		_, err := r.daemon.Engine.Stop(context.Background(), web, false, 0)
		return err
	}, func(v vm.VMRecord, there bool) bool { return there && v.Want == vm.WantStopped }}
	deleteIt = intent{"delete", func(r *run) error {
		_, err := r.daemon.Engine.Delete(context.Background(), web)
		return err
	}, func(_ vm.VMRecord, there bool) bool { return !there }}
)

// TestIntentsChangeAtEveryPoint: whatever a worker is at, what is asked for last is what comes of it. The worker, which acts
// for the intent before, must not write over it what it found out meanwhile.
func TestIntentsChangeAtEveryPoint(t *testing.T) {
	refused := func(r *run) answer {
		rules := r.w.k.usual()
		rules.Configure = func(vmm.Config, fake.GuestConfigure) error { return errors.New("no") }
		r.w.k.Rule(rules)
		return start(r)
	}
	for _, c := range []struct {
		name    string
		before  func(*run)
		do      func(*run) answer
		intents []intent
	}{
		{"start", makeStopped, start, []intent{stopIt, deleteIt}},
		{"a start that fails", makeStopped, refused, []intent{stopIt, deleteIt}},
		{"stop", makeRunning, stop, []intent{startIt, deleteIt}},
		{"kill", makeRunning, kill, []intent{startIt, deleteIt}},
		{"the VMM dies", makeRunning, vmmDies, []intent{stopIt, deleteIt}},
		{"the VMM dies, and its policy restarts it", makeRestarted, restartedAfter, []intent{stopIt, deleteIt}},
		{"reset", makeRunning, reset(true), []intent{deleteIt}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from := beginning(t, operation{before: c.before})
			defer from.w.close()
			var missed, whole []string
			for range 3 { // a first run now and then goes a way that no later one does: it is no measure then
				var err error
				if whole, err = change(from, c.do, "", intent{}); err != nil || len(whole) == 0 {
					t.Fatalf("by itself: %v, %d points", err, len(whole))
				}
				cases := 0
				missed = nil
				for _, i := range c.intents {
					for n, p := range whole {
						if n%everyPoint != 0 {
							continue
						}
						cases++
						if !changesAt(t, from, c.do, p, i) {
							missed = append(missed, i.name+" at "+p)
						}
					}
				}
				if len(missed)*10 <= cases {
					return
				}
			}
			t.Errorf("these were not passed again: %q; at first were %q", missed, whole)
		})
	}
}

// changesAt is one case; false = its point was not passed.
func changesAt(t *testing.T, from *snapshot, do func(*run) answer, at string, i intent) bool {
	_, err := change(from, do, at, i)
	for range 4 { // workers of several VMs at once do not count alike each time
		if !errors.Is(err, errNotPassed) {
			break
		}
		_, err = change(from, do, at, i)
	}
	if errors.Is(err, errNotPassed) {
		return false
	}
	if err != nil {
		t.Errorf("%s at %s: %v", i.name, at, err)
		if *impatient {
			t.FailNow()
		}
	}
	return true
}

// change does something, with an intent that comes at a point of what the worker does for it; empty = none does. It returns
// the points at which one can.
func change(from *snapshot, do func(*run) answer, at string, i intent) (points []string, err error) {
	w := from.restore()
	defer w.k.end()
	r, err := next(w, "")
	defer r.close()
	if err != nil {
		return nil, err
	}
	asked, ended := make(chan error, 1), make(chan struct{})
	r.instead(at, func() { asked <- i.ask(r) })
	go func() { // it may wait for what does not come any more
		defer close(ended)
		do(r)
	}()
	if at == "" {
		<-ended
	} else {
		err = passed(r, asked, ended)
	}
	err = errors.Join(err, r.rest())
	for _, p := range r.points() {
		if !strings.HasPrefix(p, "vm-") && !strings.Contains(p, ":rows:") { // the API's own acts; within a transaction
			points = append(points, p)
		}
	}
	if at == "" {
		return points, err
	}
	if v, there := r.record(web); !i.kept(v, there) {
		err = errors.Join(err, fmt.Errorf("it is there: %v, want %s, %s (%s)", there, v.Want, v.State, v.Runtime.LastError))
	}
	r.end()
	r.stop()
	<-ended
	return points, err
}

// passed waits until the point was passed, and returns what came of the intent.
func passed(r *run, asked <-chan error, ended <-chan struct{}) error {
	select {
	case err := <-asked:
		return err
	case <-ended: // what the worker does after the answer may pass it
	}
	err := r.rest()
	select {
	case err := <-asked:
		return err
	default:
		return errors.Join(err, errNotPassed)
	}
}
