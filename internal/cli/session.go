package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"banger/internal/guest"
	"banger/internal/vm"
)

// session joins this program's terminal or pipes to a command in a guest until that ends. The returned error is the
// command's exit status (exit), or tells why it was not started or not followed to its end. It closes conn. answers asks
// the guest whether it lives, where it seems not to: nil when it does.
func (a *app) session(ctx context.Context, conn net.Conn, r guest.ExecRequest, name string, answers func(context.Context) error) error {
	heard := &hearing{Conn: conn}
	stdio := guest.Stdio{Out: a.out, Err: a.err}
	if r.Stdin {
		stdio.In = a.in
	}
	var restore func()
	if r.TTY {
		resize, back, err := a.rawTerminal()
		if err != nil {
			conn.Close()
			return err
		}
		defer back()
		stdio.Resize, restore = resize, back
	}
	signals, end := a.forwardSignals(ctx, restore, heard, name, answers)
	defer end()
	stdio.Signals = signals

	status, err := guest.RunExec(ctx, heard, stdio)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case vm.CodeOf(err) == vm.CodeUnavailable:
		return vm.Errorf(vm.CodeUnavailable, "VM %s: %w", name, err).WithHint("see 'banger vm show %s' and 'banger vm logs %s'", name, name)
	case err != nil:
		return err
	case status.Reason != "":
		if restore != nil {
			restore() // before a line is printed
		}
		a.report(errors.New(status.Reason))
		return exit(status.Code)
	case status.Code != 0:
		return exit(status.Code)
	}
	return nil
}

// rawTerminal hands the terminal to the guest and tells of its changes of size. restore may be called several times.
func (a *app) rawTerminal() (resize <-chan guest.Size, restore func(), err error) {
	fd := int(a.in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, vm.Errorf(vm.CodeInternal, "switch the terminal to raw mode: %w", err)
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	done := make(chan struct{})
	sizes := make(chan guest.Size, 1)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
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
		_ = term.Restore(fd, state)
	}), nil
}
