package cli

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// Exit codes of banger itself; everything else is the guest command's own.
const (
	exitFailed = 125 // banger failed
	exitSignal = 128 // plus the number of the signal that ended banger: 130 on Ctrl-C
)

// exit is an error that says nothing: the code is the message.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// interrupted is the cause of a context that a signal cancelled.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted by " + i.signal.String() }

// exitCode prints what is to be said about err and returns the code for it. The only place where codes are chosen.
func (a *app) exitCode(err error) int {
	var code exit
	var by interrupted
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &by):
		return exitSignal + int(by.signal)
	case errors.Is(err, syscall.EPIPE) && !errors.As(err, new(*net.OpError)): // nobody reads our output any more, as in `banger vm logs web | head`
		return exitSignal + int(syscall.SIGPIPE)
	default:
		a.report(err)
		return exitFailed
	}
}

// report prints an error for people, with its hint on the following lines. The words may be the guest's.
func (a *app) report(err error) {
	message, hint := err.Error(), vm.HintOf(err)
	if errors.Is(err, client.ErrNoDaemon) && hint == "" {
		hint = "any command that needs the daemon starts it, such as 'banger ps'"
	}
	fmt.Fprintf(a.err, "banger: %s\n", cleanLines(message))
	if hint != "" {
		fmt.Fprintf(a.err, "  hint: %s\n", cleanLines(hint))
	}
}
