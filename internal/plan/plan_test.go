package plan

import (
	"testing"
	"time"

	"banger/internal/vm"
)

func rec(want vm.Want, state vm.State) vm.VMRecord {
	return vm.VMRecord{Want: want, State: state, Runtime: vm.VMRuntime{State: state}}
}

func TestNext(t *testing.T) {
	now := time.Unix(1000, 0)
	auto := func(r vm.VMRecord) vm.VMRecord { r.Spec.AutoRemove = true; return r }
	reset := func(r vm.VMRecord) vm.VMRecord { r.Runtime.ResetDue = true; return r }
	failed := func(r vm.VMRecord, retry time.Duration) vm.VMRecord {
		r.Runtime.Attempts, r.Runtime.RetryAt = 1, now.Add(retry)
		return r
	}
	tests := []struct {
		name string
		r    vm.VMRecord
		f    Facts
		want Step
	}{
		// The recovery table: a worker's first round.
		{"running, alive: adopt", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Recovering: true}, Adopt},
		{"starting when the daemon died, alive: adopt", rec(vm.WantRunning, vm.StateStarting), Facts{Process: true, Recovering: true}, Adopt},
		{"running, dead, things left: clean up", rec(vm.WantRunning, vm.StateRunning), Facts{Held: true, Recovering: true}, CleanUp},
		{"running, dead, nothing left: still demoted", rec(vm.WantRunning, vm.StateRunning), Facts{Recovering: true}, CleanUp},
		{"starting when the daemon died, dead: not started again", rec(vm.WantRunning, vm.StateStarting), Facts{Recovering: true}, CleanUp},
		{"stopped, alive: stop it", rec(vm.WantStopped, vm.StateStopping), Facts{Process: true, Recovering: true}, Stop},
		{"stopped, alive, though the state says stopped", rec(vm.WantStopped, vm.StateStopped), Facts{Process: true, Recovering: true}, Stop},
		{"stopping, dead: clean up", rec(vm.WantStopped, vm.StateStopping), Facts{Recovering: true}, CleanUp},
		{"stopped with things left: clean up", rec(vm.WantStopped, vm.StateStopped), Facts{Held: true, Recovering: true}, CleanUp},
		{"gone, alive: remove", rec(vm.WantGone, vm.StateRemoving), Facts{Process: true, Recovering: true}, Remove},
		{"gone, dead: remove", rec(vm.WantGone, vm.StateRemoving), Facts{Recovering: true}, Remove},
		// Everyday life.
		{"just asked to start", rec(vm.WantRunning, vm.StateStarting), Facts{}, Start},
		{"starting, process there: reach the agent", rec(vm.WantRunning, vm.StateStarting), Facts{Process: true}, Adopt},
		{"running", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Ready: true}, Idle},
		{"ready, but the commit failed", rec(vm.WantRunning, vm.StateStarting), Facts{Process: true, Held: true, Ready: true}, Adopt},
		{"renamed while it runs", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Ready: true, Untold: true}, Tell},
		{"paused", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Ready: true, Untold: true, Paused: true}, Idle},
		{"paused when the daemon died: looked after", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Paused: true, Recovering: true}, Adopt},
		{"paused when the daemon died: not reached", rec(vm.WantRunning, vm.StateRunning), Facts{Process: true, Held: true, Paused: true}, Idle},
		{"paused and told to stop", rec(vm.WantStopped, vm.StateStopping), Facts{Process: true, Held: true, Ready: true, Paused: true}, Stop},
		{"renamed and told to stop", rec(vm.WantStopped, vm.StateStopping), Facts{Process: true, Held: true, Ready: true, Untold: true}, Stop},
		{"the VMM died", rec(vm.WantRunning, vm.StateRunning), Facts{Held: true, Ready: true}, CleanUp},
		{"stop asked", rec(vm.WantStopped, vm.StateStopping), Facts{Process: true, Held: true, Ready: true}, Stop},
		{"stopped", rec(vm.WantStopped, vm.StateStopped), Facts{}, Idle},
		{"stopped, to be reset", reset(rec(vm.WantStopped, vm.StateStopped)), Facts{}, Reset},
		{"stopped, to be reset, after a crash", reset(rec(vm.WantStopped, vm.StateStopped)), Facts{Recovering: true}, Reset},
		{"stopping, to be reset", reset(rec(vm.WantStopped, vm.StateStopping)), Facts{Process: true, Held: true}, Stop},
		{"stopped, to be reset, but something is left", reset(rec(vm.WantStopped, vm.StateStopped)), Facts{Held: true}, CleanUp},
		{"started before its reset was done", reset(rec(vm.WantRunning, vm.StateStarting)), Facts{}, Reset},
		{"reset failed, not yet due", failed(reset(rec(vm.WantStopped, vm.StateStopped)), time.Second), Facts{Now: now}, Wait},
		{"to be reset, and deleted", reset(rec(vm.WantGone, vm.StateRemoving)), Facts{}, Remove},
		{"failed to start", rec(vm.WantStopped, vm.StateError), Facts{}, Idle},
		// Removed with its session.
		{"session runs", auto(rec(vm.WantRunning, vm.StateRunning)), Facts{Process: true, Ready: true, Session: true}, Idle},
		{"session over", auto(rec(vm.WantRunning, vm.StateRunning)), Facts{Process: true, Ready: true}, Forget},
		{"the session died with the daemon", auto(rec(vm.WantRunning, vm.StateRunning)), Facts{Process: true, Recovering: true}, Forget},
		{"still booting, session to come", auto(rec(vm.WantRunning, vm.StateStarting)), Facts{Session: true}, Start},
		{"its VMM died under the session", auto(rec(vm.WantStopped, vm.StateStopped)), Facts{}, Forget},
		// Back-off.
		{"removal failed, not yet due", failed(rec(vm.WantGone, vm.StateRemoving), time.Second), Facts{Now: now}, Wait},
		{"removal failed, due", failed(rec(vm.WantGone, vm.StateRemoving), 0), Facts{Now: now}, Remove},
		{"a new daemon tries at once", failed(rec(vm.WantGone, vm.StateRemoving), time.Hour), Facts{Now: now, Recovering: true}, Remove},
		{"clean-up failed, not yet due", failed(rec(vm.WantStopped, vm.StateStopping), time.Second), Facts{Now: now, Held: true}, Wait},
		{"a failed clean-up never blocks stopping what lives", failed(rec(vm.WantStopped, vm.StateStopping), time.Second), Facts{Now: now, Process: true}, Stop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Next(tt.r, tt.f); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Whatever is seen: what is wanted gone is only ever removed (or waits to be), and nothing is started that was not asked for.
func TestNextNeverSurprises(t *testing.T) {
	bools := []bool{false, true}
	for _, want := range []vm.Want{vm.WantRunning, vm.WantStopped, vm.WantGone} {
		for _, state := range []vm.State{vm.StateStopped, vm.StateStarting, vm.StateRunning, vm.StateStopping, vm.StateRemoving, vm.StateError} {
			for i := range 64 {
				b := func(n int) bool { return bools[i>>n&1] }
				r := rec(want, state)
				r.Spec.AutoRemove = b(5)
				f := Facts{Process: b(0), Held: b(1), Ready: b(2), Recovering: b(3), Session: b(4)}
				step := Next(r, f)
				if (want == vm.WantGone) != (step == Remove) {
					t.Errorf("%s %s %+v: %s", want, state, f, step)
				}
				if step == Start && (want != vm.WantRunning || state != vm.StateStarting || f.Recovering || f.Process) {
					t.Errorf("%s %s %+v: started", want, state, f)
				}
				if step == Adopt && !f.Process {
					t.Errorf("%s %s %+v: adopted nothing", want, state, f)
				}
			}
		}
	}
}

// The clock of the wall decides when a failed removal is tried again, and nothing else here. However it jumps, a try is at
// most one back-off away, and none comes early while it stands still.
func TestBackoffWithAClockThatJumps(t *testing.T) {
	failed := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	for n := 1; n < 12; n++ {
		r := rec(vm.WantGone, vm.StateRemoving)
		r.Runtime.Attempts, r.Runtime.RetryAt = n, failed.Add(Backoff(n))
		for jump, want := range map[time.Duration]Step{
			0: Wait, Backoff(n) - 1: Wait, Backoff(n): Remove, time.Hour: Remove, -time.Second: Remove, -time.Hour: Remove, -1000 * time.Hour: Remove,
		} {
			if got := Next(r, Facts{Held: true, Now: failed.Add(jump)}); got != want {
				t.Errorf("attempt %d, clock moved by %v: %s, want %s", n, jump, got, want)
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1 << 30: 5 * time.Minute} {
		if got := Backoff(n); got != want {
			t.Errorf("Backoff(%d) = %v, want %v", n, got, want)
		}
	}
}
