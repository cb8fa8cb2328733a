package engine

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/handles"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

func TestRemovedWithItsSession(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	t.Run("when it ends", func(t *testing.T) {
		r := d.run("", true)
		_, end, err := d.Session(t.Context(), r.Name)
		must(t, err)
		if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Want != vm.WantRunning {
			t.Fatalf("%+v, %v", now, err)
		}
		end()
		d.untilGone(r.ID)
	})
	t.Run("when the daemon dies under it", func(t *testing.T) {
		r := d.run("", true)
		stays := d.run("stays", false)
		_, _, err := d.Session(t.Context(), r.Name)
		must(t, err)
		d.kill()
		d = w.start()
		d.untilGone(r.ID)
		_, err = d.Agent(t.Context(), stays.Name)
		must(t, err)
		_, err = d.Delete(t.Context(), stays.Name)
		must(t, err)
		d.untilGone(stays.ID)
	})
	w.nothingLeft()
}

func TestSessionIsWaitedFor(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		s    session
		want bool
		due  bool
	}{
		"still booting":         {session{}, true, false},
		"may come":              {session{until: now.Add(time.Second)}, true, true},
		"did not come":          {session{until: now.Add(-time.Second)}, false, true},
		"running":               {session{running: 1, until: now.Add(-time.Hour)}, true, false},
		"over":                  {session{over: true, until: now.Add(time.Hour)}, false, false},
		"one over, one running": {session{running: 1, over: true}, true, false},
	} {
		if got := tt.s.due(now) > 0; got != tt.due {
			t.Errorf("%s: due %v", name, got)
		}
		if got := tt.s.present(now); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFailedRemovalIsRetriedAndKeepsTheRow(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	w.faults.detach, w.faults.removeNet = errors.New("device busy"), errors.New("link busy")
	_, err := d.Delete(t.Context(), "web")
	must(t, err)
	err = d.Watch().Gone(t.Context(), r.ID, nil)
	if err == nil || !strings.Contains(err.Error(), "device busy") || !strings.Contains(err.Error(), "link busy") {
		t.Fatalf("every step's error must be told: %v", err)
	}
	now, err := d.Store.VM(t.Context(), r.ID)
	must(t, err)
	if now.State != vm.StateRemoving || now.Runtime.RetryAt.IsZero() || handles.Read(r.ID, r.Runtime.VMDir).IsZero() {
		t.Errorf("a failed removal must keep the row and what it needs: %+v", now)
	}
	d.kill() // the retry is durable
	w.faults = faults{}
	d = w.start()
	d.untilGone(r.ID)
	w.nothingLeft()
}

func TestNoSpaceWhileStarting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.faults.workDisk = &os.PathError{Op: "write", Path: "work.ext4", Err: noSpaceErrno}
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if vm.CodeOf(err) != vm.CodeNoSpace || !strings.Contains(err.Error(), "no space left") || !strings.Contains(vm.HintOf(err), "free some space") {
		t.Errorf("%v, code %s, hint %q", err, vm.CodeOf(err), vm.HintOf(err))
	}
}

// A start that never came to a boot has no console to look at.
func TestHintOfAFailedStart(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.faults.workDisk = errors.New("the disk is odd")
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if !strings.Contains(err.Error(), "the disk is odd") || !strings.Contains(vm.HintOf(err), "banger doctor") {
		t.Errorf("before a boot: %v, hint %q", err, vm.HintOf(err))
	}
	must(t, os.WriteFile(r.Runtime.LogPath, []byte("Linux version\n"), 0o600))
	_, err = d.Start(t.Context(), string(r.ID))
	must(t, err)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	if !strings.Contains(vm.HintOf(err), "banger vm logs "+r.Name) {
		t.Errorf("with a console: %v, hint %q", err, vm.HintOf(err))
	}
}

func TestHangingUpOnlyStopsWaiting(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	ready := make(chan struct{})
	w.host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return ready }})
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	waitForProcess(t, w, r.ID)
	cancel()
	if _, err := d.Watch().Started(ctx, r.ID, nil); err == nil {
		t.Error("a cancelled wait succeeded")
	}
	close(ready)
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
}

func TestAVMWithABrokenRowIsRemovedWhole(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	d.kill()
	db, err := sql.Open("sqlite", w.paths.Database())
	must(t, err)
	_, err = db.Exec(`UPDATE vms SET runtime = '{', spec = '{'`)
	must(t, errors.Join(err, db.Close()))
	d = w.start()
	_, err = d.Delete(t.Context(), "web")
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}

// silent is a driver whose guests take connections and never say a word, as a hostile one can.
type silent struct{ vmm.Driver }

func (silent) Multiplexed() bool { return true }

func (silent) DialAgent(context.Context, vmm.Ref) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return ours, nil
}

func TestAGuestThatNeverAnswersHoldsNobody(t *testing.T) {
	a := newAgent(silent{}, vmm.Ref{AgentSock: "/x"})
	asked := make(chan error, 2)
	for range 2 { // one begins the session, one waits for it; neither has an end of its own
		go func() { _, err := a.dial(context.Background()); asked <- err }()
	}
	closed := make(chan struct{})
	go func() { a.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("close waits for the guest")
	}
	for range 2 {
		select {
		case err := <-asked:
			if err == nil {
				t.Error("a session with nobody")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("who waits for a session is not told")
		}
	}
}

func TestAStartThatCannotBeCleanedUpIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	launches := atomic.Int32{}
	w.host.Rule(fake.Rules{Launch: func(vmm.Config) error { launches.Add(1); return errors.New("no such luck") }})
	w.faults.detach = errors.New("device busy")
	r, err := d.Create(t.Context(), api.CreateRequest{Start: true}, nil)
	must(t, err)
	now := d.until(r.ID, "a failed clean-up", func(r vm.VMRecord) bool { return r.Runtime.Attempts > 0 })
	if now.Want != vm.WantStopped || !strings.Contains(now.Runtime.LastError, "device busy") || !strings.Contains(now.Runtime.LastError, "no such luck") {
		t.Errorf("%+v", now)
	}
	time.Sleep(200 * time.Millisecond)
	if n := launches.Load(); n != 1 {
		t.Errorf("launched %d times", n)
	}
	w.faults = faults{}
	_, err = d.Delete(t.Context(), r.Name)
	must(t, err)
	d.untilGone(r.ID)
	w.nothingLeft()
}
