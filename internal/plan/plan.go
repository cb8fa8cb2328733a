// Package plan decides, purely: the next step of one VM from what it should be and what was just seen. It does no I/O,
// reads no clock, and imports only internal/vm. internal/engine looks, asks here, and acts.
package plan

import (
	"time"

	"banger/internal/vm"
)

// Facts are what the engine saw of one VM in this round.
type Facts struct {
	Process    bool      // a process is proven to be its VMM
	Held       bool      // handles name something, or the host still shows something of its run
	Ready      bool      // its agent was configured in this daemon's life
	Paused     bool      // the machine was halted by its user: its guest answers nobody
	Untold     bool      // it is ready, and its guest was told another name than the record's, or has been paused since, or its network is to be tried again
	Recovering bool      // first round after the daemon's start
	Session    bool      // for a VM that is removed with its session: one is there, or may still come
	Now        time.Time // for back-off
}

// Step is what to do next.
type Step string

// The steps. Each is one function of the engine.
const (
	Idle    Step = "idle"     // nothing to do until something changes
	Start   Step = "start"    // make what is missing, launch, wait for the agent
	Adopt   Step = "adopt"    // a proven process: dial and configure its agent, record that it runs
	Tell    Step = "tell"     // configure the guest once more: its name, the time, its network
	Stop    Step = "stop"     // end the process: guest, VMM, kill
	CleanUp Step = "clean up" // nothing lives: take down what is left of the run, then state stopped
	Reset   Step = "reset"    // nothing lives: delete the system disk, which the next start makes anew
	Remove  Step = "remove"   // end, take down, delete everything, the row last
	Forget  Step = "forget"   // its session is over: make the intent "gone"
	Steady  Step = "steady"   // it has run well since it was restarted: count restarts anew
	Wait    Step = "wait"     // until a failed removal or clean-up is retried, or a restart is due: see Due
)

// Next is the recovery table and the life of a VM in one function (docs/ARCHITECTURE.md shows it as a table).
func Next(r vm.VMRecord, f Facts) Step {
	step := next(r, f)
	if (step == Remove || step == CleanUp || step == Reset) && !f.Recovering && r.Runtime.Attempts > 0 && waits(r.Runtime, f.Now) {
		return Wait
	}
	return step
}

// waits says that the next try is not due. RetryAt is of the clock on the wall, which may have been set back since: nobody
// waits longer than was meant.
func waits(r vm.VMRuntime, now time.Time) bool {
	return ahead(r.RetryAt, now, Backoff(r.Attempts))
}

// ahead says that a time is to come, and not further away than it was ever meant to be.
func ahead(at, now time.Time, most time.Duration) bool {
	left := at.Sub(now)
	return left > 0 && left <= most
}

func next(r vm.VMRecord, f Facts) Step {
	if r.Want == vm.WantGone {
		return Remove
	}
	if r.Spec.AutoRemove && !f.Session && (f.Recovering || f.Ready || r.Want == vm.WantStopped) {
		return Forget
	}
	switch {
	case r.Want == vm.WantStopped && f.Process:
		return Stop
	case r.Want == vm.WantStopped && (f.Held || !settled(r.Runtime.State)):
		return CleanUp
	case r.Want == vm.WantStopped && r.Runtime.ResetDue:
		return Reset
	case r.Want == vm.WantStopped:
		return Idle
	case f.Process && f.Paused && !f.Recovering && r.Runtime.State == vm.StateRunning:
		return Idle
	case f.Process && (!f.Ready || r.Runtime.State != vm.StateRunning):
		return Adopt // ready, but not recorded as running: the commit failed, or a stop and a start came at once
	case f.Process && f.Untold:
		return Tell
	case f.Process && r.Runtime.Restarts > 0 && steadyIn(r, f.Now) <= 0:
		return Steady
	case f.Process:
		return Idle
	case Pending(r) && f.Recovering && !f.Held, Pending(r) && !f.Recovering && ahead(r.Runtime.RestartAt, f.Now, RestartBackoff(r.Runtime.Restarts)):
		return Wait // with all the others that the daemon's start has to look at first, or for its time
	case r.Runtime.State == vm.StateStarting && !f.Recovering && r.Runtime.ResetDue:
		return Reset
	case r.Runtime.State == vm.StateStarting && !f.Recovering:
		return Start
	default: // it should run and does not: whether it is started again is asked when nothing of its run is left, see Again
		return CleanUp
	}
}

// settled says that a state promises nothing is left of a run.
func settled(s vm.State) bool { return s == vm.StateStopped || s == vm.StateError }

// Backoff is how long to wait after the n-th failed attempt: 1 s doubling to 5 minutes.
func Backoff(n int) time.Duration {
	const most = 5 * time.Minute
	if n > 9 {
		return most
	}
	return min(time.Second<<max(n-1, 0), most)
}
