package plan

import (
	"testing"
	"time"

	"banger/internal/vm"
)

func TestAgain(t *testing.T) {
	now := time.Unix(100000, 0)
	crash, off, reboot := End{Failed: true}, End{}, End{Failed: true, Reboot: true}
	for _, tt := range []struct {
		name   string
		policy string
		before int           // restarts in a row so far
		ran    time.Duration // since it was ready; 0 = it was not
		end    End
		want   int // restarts after it; 0 = it stays stopped
	}{
		{"no policy", "", 0, time.Hour, crash, 0},
		{"no", "no", 0, time.Hour, crash, 0},
		{"a policy that cannot be read", "often", 0, time.Hour, crash, 0},
		{"on-failure, a crash", "on-failure", 0, time.Hour, crash, 1},
		{"on-failure, its guest powered off", "on-failure", 0, time.Hour, off, 0},
		{"on-failure, the host was rebooted", "on-failure", 0, time.Hour, reboot, 0},
		{"on-failure, a crash soon after a restart", "on-failure", 4, time.Second, crash, 5},
		{"on-failure, a crash long after a restart", "on-failure", 4, time.Hour, crash, 1},
		{"on-failure, a restart failed", "on-failure", 4, 0, crash, 5},
		{"on-failure:3, twice before", "on-failure:3", 2, time.Second, crash, 3},
		{"on-failure:3, three times before", "on-failure:3", 3, time.Second, crash, 0},
		{"on-failure:3, three times, and then it ran well", "on-failure:3", 3, RanWell, crash, 1},
		{"always, a crash", "always", 0, time.Hour, crash, 1},
		{"always, its guest powered off", "always", 0, time.Hour, off, 1},
		{"always, the host was rebooted", "always", 7, time.Second, reboot, 8},
		{"always, the clock was set back", "always", 7, -time.Hour, off, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rec(vm.WantRunning, vm.StateStarting)
			r.Spec.Restart, r.Runtime.Restarts = tt.policy, tt.before
			if tt.ran != 0 {
				r.Runtime.State, r.StartedAt = vm.StateRunning, now.Add(-tt.ran)
			}
			n, at, ok := Again(r, tt.end, now)
			if n != tt.want || ok != (tt.want > 0) || ok && !at.Equal(now.Add(RestartBackoff(n))) {
				t.Errorf("%d restarts, %v, at %v", n, ok, at.Sub(now))
			}
			r.Want = vm.WantStopped
			if _, _, ok := Again(r, tt.end, now); ok {
				t.Error("it is started though nobody wants it to run")
			}
		})
	}
}

func TestPendingRestart(t *testing.T) {
	now := time.Unix(1000, 0)
	pending := func(due time.Duration) vm.VMRecord {
		r := rec(vm.WantRunning, vm.StateStarting)
		r.Runtime.Restarts, r.Runtime.RestartAt = 3, now.Add(due)
		return r
	}
	for _, tt := range []struct {
		name string
		r    vm.VMRecord
		f    Facts
		want Step
	}{
		{"not yet due", pending(time.Millisecond), Facts{}, Wait},
		{"due", pending(0), Facts{}, Start},
		{"the clock was set back", pending(time.Hour), Facts{}, Start},
		{"the daemon was killed meanwhile", pending(-time.Hour), Facts{Recovering: true}, Wait},
		{"the daemon was killed in the middle of it", pending(-time.Hour), Facts{Recovering: true, Held: true}, CleanUp},
		{"the daemon was killed when it was launched", pending(-time.Hour), Facts{Recovering: true, Held: true, Process: true}, Adopt},
	} {
		tt.f.Now = now
		if got := Next(tt.r, tt.f); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		tt.r.Want, tt.r.Runtime.State = vm.WantStopped, vm.StateStopping
		if got := Next(tt.r, tt.f); got == Start || got == Wait {
			t.Errorf("%s, and told to stop: %s", tt.name, got)
		}
	}
	if got := Due(pending(time.Second), now); got != time.Second {
		t.Errorf("due in %v", got)
	}
}

func TestRestartsAreForgotten(t *testing.T) {
	now := time.Unix(100000, 0)
	r := rec(vm.WantRunning, vm.StateRunning)
	r.Runtime.Restarts = 2
	f := Facts{Process: true, Held: true, Ready: true, Now: now}
	for ran, want := range map[time.Duration]Step{time.Second: Idle, RanWell - 1: Idle, RanWell: Steady, time.Hour: Steady, -time.Hour: Steady} {
		r.StartedAt = now.Add(-ran)
		if got := Next(r, f); got != want {
			t.Errorf("it has run for %v: %s, want %s", ran, got, want)
		}
		if look := NextLook(r, now); want == Idle && look != max(RanWell-ran, time.Millisecond) {
			t.Errorf("it has run for %v: looked at again in %v", ran, look)
		}
	}
	if r.Runtime.Restarts = 0; Next(r, f) != Idle || NextLook(r, now) != 0 {
		t.Error("there is something to forget where nothing was restarted")
	}
}

func TestRestartBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond,
		12: 204800 * time.Millisecond, 13: 5 * time.Minute, 1 << 30: 5 * time.Minute} {
		if got := RestartBackoff(n); got != want {
			t.Errorf("RestartBackoff(%d) = %v, want %v", n, got, want)
		}
	}
}
