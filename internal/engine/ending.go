package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"banger/internal/host/logfile"
	"banger/internal/plan"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// ending says why a VM that should run does not, and what its restart policy is to make of that. The reason is empty when it
// was asked to stop, or its guest ended by itself in good order.
func (w *worker) ending(r vm.VMRecord) (why string, end plan.End) {
	if r.Want != vm.WantRunning {
		return "", plan.End{}
	}
	if booted := w.e.Handles.Get(r.ID).BootID; w.recovering && booted != "" && booted != w.e.BootID {
		return "the host was rebooted", plan.End{Failed: true, Reboot: true}
	}
	w.mu.Lock()
	failed := w.startError
	w.mu.Unlock()
	if failed != nil { // and what it had begun was not taken down at once
		return failed.Error(), plan.End{Failed: true}
	}
	if w.recovering {
		return "its VMM had ended while no daemon ran", plan.End{Failed: !endedInOrder(r)}
	}
	switch how := w.exitReason(); {
	case how == cleanExit:
		why := w.unasked(r)
		return why, plan.End{Failed: why != ""}
	case how == "" && endedInOrder(r):
		return "", plan.End{}
	case how == "":
		return "its VMM ended", plan.End{Failed: true}
	default:
		return "its VMM ended: " + how, plan.End{Failed: true}
	}
}

// unasked says why a VMM that nobody told to end ended as it does when its guest powers off or restarts; empty when that is
// what the guest did. A panic ends it so too, and so does a triple fault, of which no kernel can say a word.
func (w *worker) unasked(r vm.VMRecord) string {
	console, known := w.console(r)
	if !known {
		return "" // nothing tells
	}
	if strings.Contains(console, kernelPanic) {
		return "its guest's kernel panicked" + w.lastWords(r)
	}
	if farewell.MatchString(console) {
		return ""
	}
	if m := terminated.FindString(vmm.LogTail(filepath.Join(r.Runtime.VMDir, vmmLog), w.logFrom, consoleEnd)); strings.Contains(m, "from pid 1 ") {
		return "" // the host goes down
	} else if m != "" {
		return "its VMM ended: " + m
	}
	return "its guest ended without powering off or rebooting: most likely a fault of its processor" + w.lastWords(r)
}

// console is the end of what a guest wrote in this run. What came last may have been put aside just then, to keep the file
// small. Without the file nothing is known of it.
func (w *worker) console(r vm.VMRecord) (text string, known bool) {
	path := r.Runtime.LogPath
	if _, err := os.Stat(path); err != nil {
		return "", false
	}
	text = vmm.LogTail(path, w.consoleFrom, consoleEnd)
	if st, err := os.Stat(logfile.Old(path)); err == nil && st.ModTime().After(w.launched.Add(-fileClock)) {
		text = vmm.LogTail(logfile.Old(path), 0, consoleEnd) + "\n" + text
	}
	return text, true
}

var (
	// farewell is what a kernel says before an end that somebody in the guest asked for (kernel/reboot.c, drivers/tty/sysrq.c).
	// "quiet" does not hold it back: it is of the highest level, and SysRq raises the console's. It may follow what a program
	// wrote without ending its line.
	farewell = regexp.MustCompile(`(?m)(^|\[ *\d+\.\d+\](\[ *[TC]\d+\])? )(reboot: |sysrq: Resetting)`)
	// terminated is what a QEMU says that was sent a signal from outside; it exits with 0 then (QEMU: system/runstate.c).
	terminated = regexp.MustCompile(`terminating on signal \d+.*`)
)

// fileClock is how far the clock that files get their times from may be behind: it only ticks.
const fileClock = 20 * time.Millisecond

// endedInOrder tells the end of a guest that powered off or rebooted by what its kernel says last, for a VMM of which nobody
// learns how it ended. The console keeps what earlier runs said: only what was written since the VM became ready counts. Where
// the clock was set back meanwhile, so that the VM is yet to become ready, nothing tells when that was: what is said last counts.
func endedInOrder(r vm.VMRecord) bool {
	st, err := os.Stat(r.Runtime.LogPath)
	setBack := r.StartedAt.After(time.Now())
	if err != nil || r.Runtime.State != vm.StateRunning || !setBack && st.ModTime().Before(r.StartedAt.Add(-fileClock)) {
		return false
	}
	lines := strings.Split(strings.TrimSpace(vmm.LogTail(r.Runtime.LogPath, 0, consoleEnd)), "\n")
	return farewell.MatchString(lines[len(lines)-1])
}

// again decides what follows the end of a run, into the record: it is started again by its policy, or stopped, in the state
// rest. It returns why the run ended, completed.
func again(r *vm.VMRecord, end plan.End, why string, rest vm.State) string {
	n, at, ok := plan.Again(*r, end, time.Now())
	if ok {
		r.Runtime.State, r.Runtime.Restarts, r.Runtime.RestartAt = vm.StateStarting, n, at
		return why
	}
	if p, err := vm.ParseRestart(r.Spec.Restart); err == nil && p.Max > 0 && r.Runtime.Restarts >= p.Max && why != "" {
		why += fmt.Sprintf("; it was started again %d times in a row, as often as its restart policy allows", r.Runtime.Restarts)
	}
	r.Want, r.Runtime.State = vm.WantStopped, rest
	r.Runtime.Restarts, r.Runtime.RestartAt = 0, time.Time{}
	return why
}
