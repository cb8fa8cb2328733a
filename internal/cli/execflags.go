package cli

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/guest"
)

// execFlags are the flags of a command that runs a process in a guest: run and exec.
type execFlags struct {
	interactive, tty bool
	env, envFiles    []string
	dir, user        string
	timeout          timeFlag
}

// cutOff is how long a command goes on whose client was killed, or whose daemon: time to see it, and to attach again.
const cutOff = 5 * time.Minute

func newExecFlags(cmd *cobra.Command) *execFlags {
	e := &execFlags{}
	f := cmd.Flags()
	f.BoolVarP(&e.interactive, "interactive", "i", false, "pass stdin to the command")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal (implies -i)")
	f.StringArrayVarP(&e.env, "env", "e", nil, "set `KEY=VALUE` in its environment; KEY alone takes the value it has here")
	f.StringArrayVar(&e.envFiles, "env-file", nil, "set the variables of `FILE`: KEY=VALUE a line, as Docker reads it; --env wins over it")
	f.StringVarP(&e.dir, "workdir", "w", "", "`DIR` to run it in (default: the user's home)")
	f.StringVarP(&e.user, "user", "u", "", "`USER` to run it as: a name or number, optionally :GROUP (default root)")
	f.Var(&e.timeout, "timeout", "end the command after this `TIME`, as 30s or 5m, a bare number is seconds: SIGTERM, SIGKILL 5s later, exit status 124")
	return e
}

// request makes the guest's request of the flags. It refuses -t where stdin is no terminal, but for a command to which
// one may come later.
func (e *execFlags) request(a *app, cmd *cobra.Command, argv []string, detached bool) (guest.ExecRequest, error) {
	if argv[0] == "" {
		return guest.ExecRequest{}, usage(cmd, "the command is empty")
	}
	r := guest.ExecRequest{Argv: argv, Dir: e.dir, User: e.user, TTY: e.tty, Stdin: e.interactive || e.tty, LingerMs: cutOff.Milliseconds()}
	switch {
	case cmd.Flags().Changed("timeout") && e.timeout.Duration < time.Millisecond:
		return r, usage(cmd, "--timeout %v: it must be a millisecond or more", e.timeout.Duration)
	case e.timeout.Duration > 0:
		r.TimeoutMs = e.timeout.Milliseconds()
	}
	for _, file := range e.envFiles {
		env, err := readEnvFile(file)
		if err != nil {
			return r, err
		}
		r.Env = append(r.Env, env...)
	}
	for _, kv := range e.env {
		key, _, has := strings.Cut(kv, "=")
		if key == "" {
			return r, usage(cmd, "--env %q: there is no name before the '='", kv)
		}
		if !has {
			kv = fromHere(key)
		}
		if kv != "" {
			r.Env = append(r.Env, kv)
		}
	}
	if !e.tty {
		return r, nil
	}
	fd := int(a.in.Fd())
	if !term.IsTerminal(fd) && detached {
		return r, nil
	}
	if !term.IsTerminal(fd) {
		return r, usage(cmd, "-t needs a terminal on stdin, and stdin is none")
	}
	if cols, rows, err := term.GetSize(fd); err == nil {
		r.Rows, r.Cols = uint16(rows), uint16(cols)
	}
	if t := os.Getenv("TERM"); t != "" {
		r.Env = append([]string{"TERM=" + t}, r.Env...) // first: -e TERM=… wins
	}
	return r, nil
}
