package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// sameMoment is how soon after a signal another one is no second wish. One that is sent to this process and to its group comes
// twice, as from timeout(1), and so does one that a parent passes on which its terminal has given to both. Nobody types as fast.
const sameMoment = 100 * time.Millisecond

// signals decides what a signal to banger does: it cancels the command, unless a session forwards it to the guest.
// The second one, when the first had cancelled already, ends the program on the spot.
type signals struct {
	ch     chan os.Signal
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	canceled time.Time // zero = not yet
	forward  func(syscall.Signal)
	restore  func() // brings the terminal back before an end on the spot
}

// sessionSignals are caught once there is a guest to forward them to. Without one they do what they would do uncaught.
var sessionSignals = []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

func catchSignals(parent context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancelCause(parent)
	s := &signals{ch: make(chan os.Signal, 8), cancel: cancel}
	signal.Notify(s.ch, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup stays nohup
		signal.Notify(s.ch, syscall.SIGHUP)
	}
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is an error of the write, so that `run --rm | head` still cleans up
	go s.loop()
	return ctx, s
}

// loop goes on to the end of the program: letting go of each signal would take a tenth of a millisecond of it.
func (s *signals) loop() {
	for got := range s.ch {
		sig, ok := got.(syscall.Signal)
		if !ok {
			continue
		}
		s.mu.Lock()
		forward, restore, again := s.forward, s.restore, !s.canceled.IsZero()
		soon := again && time.Since(s.canceled) < sameMoment
		uncaught := forward == nil && slices.Contains(sessionSignals, got)
		if forward == nil && !uncaught && !again {
			s.canceled = time.Now()
		}
		s.mu.Unlock()
		switch {
		case forward != nil:
			forward(sig)
		case uncaught:
			signal.Reset(sig)
			_ = syscall.Kill(os.Getpid(), sig)
		case soon:
		case again:
			if restore != nil {
				restore()
			}
			os.Exit(exitSignal + int(sig))
		default:
			s.cancel(interrupted{sig})
		}
	}
}

// session hands all signals to forward until the returned function is called. restore may be nil.
func (s *signals) session(forward func(syscall.Signal), restore func()) (end func()) {
	s.mu.Lock()
	s.forward, s.restore = forward, restore
	s.mu.Unlock()
	signal.Notify(s.ch, sessionSignals...)
	return func() {
		s.mu.Lock()
		s.forward = nil
		s.mu.Unlock()
	}
}

// interrupt cancels the command as a signal would.
func (s *signals) interrupt(sig syscall.Signal) {
	s.mu.Lock()
	s.forward, s.canceled = nil, time.Now()
	s.mu.Unlock()
	s.cancel(interrupted{sig})
}
