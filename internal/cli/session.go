package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"banger/internal/api/client"
	"banger/internal/guest"
	"banger/internal/vm"
)

// hangUpWait bounds the hanging up of a command that cannot be told by its own stream.
const hangUpWait = 5 * time.Second

// command is what a session is joined to, beside the request that it was started by.
type command struct {
	vm       string
	from     uint64 // so many bytes of its output came before, as far as is known without the agent
	leavable bool   // keys of a terminal leave it, and it goes on

	client *client.Client // hangs it up where its own stream cannot, and asks whether its guest lives
}

// answers asks the guest for something that it can only answer itself, where it seems not to live: nil when it does.
func (to command) answers(ctx context.Context) error {
	_, err := to.client.Processes(ctx, to.vm)
	if !isSilence(err) { // any other error is an answer, or of a VM that was renamed, or has gone, which the connection tells
		return nil
	}
	return err
}

// isSilence says that an error tells of a guest that did not answer: it may be paused, or asked in vain.
func isSilence(err error) bool {
	switch vm.CodeOf(err) {
	case vm.CodeUnavailable, vm.CodeNotRunning, vm.CodeCanceled:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// session joins this program's terminal or pipes to a command in a guest until that ends. The returned error is the
// command's exit status (exit), or tells why it was not started or not followed to its end. It closes conn.
func (a *app) session(ctx context.Context, conn net.Conn, r guest.ExecRequest, to command) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	job, had := "", counter{}
	heard := &hearing{Conn: conn}
	stdio := guest.Stdio{Out: had.to(a.out), Err: had.to(a.err)}
	stdio.Started = func(j guest.JobStarted) {
		if j.At != nil {
			had.add(uint64(max(0, *j.At)))
		} else {
			had.add(to.from)
		}
		if job = j.Job; job == "" && (r.LingerMs < 0 || r.TimeoutMs > 0) {
			cancel(noJobs(to.vm))
		}
	}
	lineEnd := "\n"
	stdio.Dropped = func(n uint64) {
		had.add(n)
		fmt.Fprintf(a.err, "[%d bytes dropped]%s", n, lineEnd)
	}
	if r.Stdin {
		stdio.In = a.in
	}
	if r.TTY && to.leavable {
		keys := newDetachKeys(a.in)
		stdio.In, stdio.Detach = keys, keys.left
	}
	var restore func()
	if r.TTY {
		resize, back, err := a.rawTerminal()
		if err != nil {
			conn.Close()
			return err
		}
		defer back()
		stdio.Resize, restore, lineEnd = resize, back, "\r\n"
	}
	if !r.Stdin && to.leavable {
		if k := a.watchKeys(); k != nil {
			defer k.restore()
			stdio.Detach, restore = k.left, k.restore
		}
	}
	signals, end := a.forwardSignals(ctx, restore, heard, &had, to, r.LingerMs < 0)
	defer end()
	stdio.Signals = signals

	unheard := false
	stdio.Unheard = func() { unheard = true }
	status, err := guest.RunExec(ctx, heard, stdio)
	if unheard && !errors.Is(err, guest.ErrDetached) && job != "" && r.LingerMs > 0 && vm.CodeOf(err) != vm.CodeUnavailable && err != nil {
		to.hangUp(ctx, job)
	}
	switch {
	case errors.Is(err, guest.ErrDetached):
		restore()
		fmt.Fprintf(a.err, "banger: detached; 'banger vm attach %s %s' attaches again\n", to.vm, job)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case vm.CodeOf(err) == vm.CodeUnavailable && r.LingerMs != 0 && job != "":
		return vm.Errorf(vm.CodeUnavailable, "VM %s: %w", to.vm, err).
			WithHint("if the VM still runs, so does the command, %s: banger vm attach --from %d %s %s", lingers(r), had.total(), to.vm, job)
	case vm.CodeOf(err) == vm.CodeUnavailable:
		return vm.Errorf(vm.CodeUnavailable, "VM %s: %w", to.vm, err).WithHint("see 'banger vm show %s' and 'banger vm logs %s'", to.vm, to.vm)
	case err != nil:
		return err
	case status.Reason != "":
		if restore != nil {
			restore() // before a line is printed
		}
		a.report(errors.New(status.Reason))
		return exit(status.Code)
	case status.TimedOut:
		if restore != nil {
			restore()
		}
		a.report(errors.New("the command was ended: its time (--timeout) was over"))
		return exit(status.Code)
	case status.Code != 0:
		return exit(status.Code)
	}
	return nil
}

// hangUp is what leaving a command does, for one that input is stuck before. It may have ended meanwhile.
func (to command) hangUp(ctx context.Context, job string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUpWait)
	defer cancel()
	_ = to.client.SignalJob(ctx, to.vm, guest.SignalRequest{Job: job, Signal: "HUP"})
}

// noJobs is the error of what an older agent would not do, and not tell either.
func noJobs(name string) error {
	return vm.Errorf(vm.CodeUnavailable, "the agent in VM %s is that of an older banger, which can neither keep a command nor end it in time", name).
		WithHint("banger vm restart %s gives it this one's", name)
}

// lingers says how long a command is waiting for a client that was cut off.
func lingers(r guest.ExecRequest) string {
	if r.LingerMs < 0 {
		return "as long as it takes"
	}
	return "for " + span(time.Duration(r.LingerMs)*time.Millisecond)
}

// counter counts the bytes of a command's output that this client had.
type counter struct{ n atomic.Uint64 }

func (c *counter) add(n uint64)             { c.n.Add(n) }
func (c *counter) total() uint64            { return c.n.Load() }
func (c *counter) to(w io.Writer) io.Writer { return counted{w, c} }

type counted struct {
	io.Writer
	c *counter
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.c.add(uint64(n))
	return n, err
}

// rawTerminal hands the terminal to the guest and tells of its changes of size. restore may be called several times.
func (a *app) rawTerminal() (resize <-chan guest.Size, restore func(), err error) {
	fd := int(a.in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, vm.Errorf(vm.CodeInternal, "switch the terminal to raw mode: %w", err)
	}
	changed, back := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	signal.Notify(back, syscall.SIGCONT)
	done := make(chan struct{})
	sizes := make(chan guest.Size, 1)
	var mu sync.Mutex
	over := false
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			case <-back: // its shell made the terminal its own, and of a change of size it was not told
				mu.Lock()
				if !over && foreground(fd) {
					_, _ = term.MakeRaw(fd)
				}
				mu.Unlock()
			}
			cols, rows, err := term.GetSize(fd)
			if err != nil {
				continue
			}
			select {
			case sizes <- guest.Size{Rows: uint16(rows), Cols: uint16(cols)}:
			case <-done:
				return
			}
		}
	}()
	return sizes, sync.OnceFunc(func() {
		close(done)
		signal.Stop(changed)
		signal.Stop(back)
		mu.Lock()
		defer mu.Unlock()
		over = true
		_ = term.Restore(fd, state)
	}), nil
}
