package plan

import (
	"time"

	"banger/internal/vm"
)

// End is how the run of a VM ended that should run.
type End struct {
	Failed bool // it crashed, was killed or panicked; false: its guest powered off or rebooted
	Reboot bool // with the host
}

// RanWell is how long a VM has to run after a restart until restarts are counted anew.
const RanWell = time.Minute

// Again says whether a VM that should run, and whose run has ended so, is started again by its policy: then it is the
// restarts-th time in a row, and due at that time. Under on-failure a reboot of the host is none of the VM's failures.
func Again(r vm.VMRecord, e End, now time.Time) (restarts int, at time.Time, ok bool) {
	p, err := vm.ParseRestart(r.Spec.Restart)
	if err != nil || r.Want != vm.WantRunning {
		return 0, time.Time{}, false
	}
	n := r.Runtime.Restarts
	if r.Runtime.State == vm.StateRunning && steadyIn(r, now) <= 0 {
		n = 0
	}
	switch {
	case p.When == vm.RestartAlways:
	case p.When == vm.RestartOnFailure && e.Failed && !e.Reboot && (p.Max == 0 || n < p.Max):
	default:
		return 0, time.Time{}, false
	}
	return n + 1, now.Add(RestartBackoff(n + 1)), true
}

// steadyIn is how long a VM that runs has still to do so until it ran well. A clock that was set back does not make it longer.
func steadyIn(r vm.VMRecord, now time.Time) time.Duration {
	left := r.StartedAt.Add(RanWell).Sub(now)
	if left > RanWell {
		return 0
	}
	return left
}

// Pending says that a VM waits for a restart by its policy, or is in the middle of it.
func Pending(r vm.VMRecord) bool {
	return r.Want == vm.WantRunning && r.Runtime.State == vm.StateStarting && !r.Runtime.RestartAt.IsZero()
}

// Due is how long a step Wait is for.
func Due(r vm.VMRecord, now time.Time) time.Duration {
	at := r.Runtime.RetryAt
	if Pending(r) {
		at = r.Runtime.RestartAt
	}
	return max(at.Sub(now), time.Millisecond)
}

// NextLook is in how long a VM that is idle wants another look; 0 = not before something changes.
func NextLook(r vm.VMRecord, now time.Time) time.Duration {
	if r.Want != vm.WantRunning || r.Runtime.State != vm.StateRunning || r.Runtime.Restarts == 0 {
		return 0
	}
	return max(steadyIn(r, now), time.Millisecond)
}

// RestartBackoff is how long to wait before the n-th restart in a row: 100 ms doubling to 5 minutes.
func RestartBackoff(n int) time.Duration {
	const first, most = 100 * time.Millisecond, 5 * time.Minute
	if n > 12 {
		return most
	}
	return min(first<<max(n-1, 0), most)
}
