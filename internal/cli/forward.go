package cli

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

const (
	// twice is how close a second Ctrl-C must follow the first to leave a command that does not heed it.
	twice = 2 * time.Second

	// heed is how long nothing may come from the guest after a signal that is to end the command, until it is asked whether it
	// lives at all; answerWait, how long it has to tell. A supervisor sends one SIGTERM, and SIGKILL after a minute or so.
	heed       = 5 * time.Second
	answerWait = 20 * time.Second
)

// signalHelp is what exec and run say of signals in their help.
const signalHelp = `Without -t, signals that banger gets (Ctrl-C, SIGTERM, …) go to the command. A second SIGTERM leaves the command at once, and
so does a second Ctrl-C within two seconds, or later if the command wrote nothing meanwhile. Where the guest does not
answer either, paused or frozen, one SIGTERM, Ctrl-C or SIGHUP is enough, half a minute later. What the command
was told then, the signal and the hang-up, reaches it once its guest goes on, or it is like one whose client was cut off.`

// hearing is a connection that counts what came over it.
type hearing struct {
	net.Conn
	reads atomic.Int64
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.reads.Add(1)
	}
	return n, err
}

// insistence decides when whoever sends signals does not want to wait for the command any longer. For one goroutine.
type insistence struct {
	last syscall.Signal // SIGINT or SIGTERM, the last that was forwarded; 0 = none
	at   time.Time      // it was
	had  uint64         // bytes of the command's output, until then
}

// ends says whether a signal is to end this program, and not to be forwarded. had is how much the
// command has written until now: that its agent asks whether we are still there is no sign of it.
func (p *insistence) ends(sig syscall.Signal, now time.Time, had uint64) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGTERM {
		return false
	}
	if sig == p.last && now.Sub(p.at) < sameMoment {
		return false
	}
	if p.last != 0 && (now.Sub(p.at) < twice || had == p.had || sig == syscall.SIGTERM && p.last == sig) {
		return true
	}
	p.last, p.at, p.had = sig, now, had
	return false
}

// forwardSignals turns signals to this program into names for the command, until end is called. A second one gets through to
// us even when the connection is full: the names wait in the channel, or are dropped. kept: the command goes on without us,
// also where our terminal has gone.
func (a *app) forwardSignals(ctx context.Context, restore func(), heard *hearing, had *counter, to command, kept bool) (names <-chan string, end func()) {
	queue := make(chan string, 8)
	ctx, cancel := context.WithCancel(ctx)
	var p insistence
	var asking atomic.Bool
	over := a.signals.session(func(sig syscall.Signal) {
		if kept && sig == syscall.SIGHUP || p.ends(sig, time.Now(), had.total()) {
			a.signals.interrupt(sig)
			return
		}
		select {
		case queue <- unix.SignalName(sig):
		default: // eight wait already
		}
		if final := sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP; final && asking.CompareAndSwap(false, true) {
			go func() {
				defer asking.Store(false)
				if err := silent(ctx, heard, to.answers); err != nil && ctx.Err() == nil {
					if restore != nil {
						restore() // before a line is printed
					}
					a.report(vm.Errorf(vm.CodeUnavailable, "VM %s: left after %s, since its guest does not answer: %w", to.vm, unix.SignalName(sig), err))
					a.signals.interrupt(sig)
				}
			}()
		}
	}, restore)
	return queue, func() { over(); cancel() }
}

// silent waits for something to come from the guest, which just got a signal. If nothing does, it asks the guest whether it
// lives, and returns why that seems not so.
func silent(ctx context.Context, heard *hearing, answers func(context.Context) error) error {
	reads := heard.reads.Load()
	wait := time.NewTimer(heed)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return nil
	}
	if heard.reads.Load() != reads {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	err := answers(ctx)
	if heard.reads.Load() != reads {
		return nil
	}
	return err
}
