package cli

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// Who sends a second signal wants to leave; who sends one to a command that lives, and heeds it, does not.
func TestInsistence(t *testing.T) {
	type sent struct {
		sig  syscall.Signal
		at   time.Duration
		had  uint64
		ends bool
	}
	for name, all := range map[string][]sent{
		"one of each that is no end":         {{syscall.SIGHUP, 0, 0, false}, {syscall.SIGHUP, 0, 0, false}, {syscall.SIGUSR1, 0, 0, false}},
		"twice, quickly":                     {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Second, 9, true}},
		"twice, at the same moment":          {{syscall.SIGTERM, 0, 1, false}, {syscall.SIGTERM, time.Millisecond, 1, false}, {syscall.SIGTERM, time.Second, 9, true}},
		"two kinds, quickly":                 {{syscall.SIGINT, 0, 1, false}, {syscall.SIGTERM, time.Second, 9, true}},
		"a program that takes Ctrl-C often":  {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Minute, 2, false}, {syscall.SIGINT, time.Hour, 3, false}},
		"Ctrl-C into silence":                {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Minute, 1, true}},
		"SIGTERM again, whatever is said":    {{syscall.SIGTERM, 0, 1, false}, {syscall.SIGTERM, time.Minute, 99, true}},
		"SIGTERM after an old Ctrl-C":        {{syscall.SIGINT, 0, 1, false}, {syscall.SIGTERM, time.Minute, 2, false}, {syscall.SIGTERM, time.Hour, 3, true}},
		"SIGHUP does not count as the first": {{syscall.SIGHUP, 0, 0, false}, {syscall.SIGTERM, 0, 0, false}},
	} {
		var p insistence
		for i, s := range all {
			if got := p.ends(s.sig, time.Unix(1000, 0).Add(s.at), s.had); got != s.ends {
				t.Errorf("%s: %d. %v ends it: %v", name, i+1, s.sig, got)
			}
		}
	}
}

// An agent that asks whether its client is still there, since input is stuck before the command, says nothing for the command:
// a second Ctrl-C leaves it.
func TestQuestionsOfTheAgentAreNoOutput(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		w := guest.NewFrameWriter(theirs)
		_ = w.Write(guest.FrameStdout, nil)
		_ = w.Write(guest.FrameStdout, nil)
		_ = theirs.Close()
	}()
	had, heard := counter{}, &hearing{Conn: ours}
	_, err := guest.RunExec(t.Context(), heard, guest.Stdio{Out: had.to(io.Discard)})
	if err == nil || heard.reads.Load() == 0 {
		t.Fatalf("%v, %d reads", err, heard.reads.Load())
	}
	var p insistence
	if p.ends(syscall.SIGINT, time.Unix(1000, 0), 0) || !p.ends(syscall.SIGINT, time.Unix(1060, 0), had.total()) {
		t.Error("they count as output")
	}
}

func TestWhatCountsAsSilence(t *testing.T) {
	for err, silent := range map[error]bool{
		vm.Errorf(vm.CodeUnavailable, "reach the guest agent: no answer"): true,
		vm.Errorf(vm.CodeNotRunning, "VM web is paused"):                  true,
		vm.Errorf(vm.CodeCanceled, "reach the guest agent: %w", io.EOF):   true,
		context.DeadlineExceeded:                                          true,
		vm.Errorf(vm.CodeInternal, "read /proc: too many open files"):     false, // it answers
		vm.Errorf(vm.CodeNotFound, "there is no VM %q", "web"):            false,
	} {
		if isSilence(err) != silent {
			t.Errorf("%v: %v", err, !silent)
		}
	}
	if isSilence(nil) {
		t.Error("no error is silence")
	}
}
