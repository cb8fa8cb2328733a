package cli

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/guest"
)

// execFlags are the flags of a command that runs a process in a guest: run and exec.
type execFlags struct {
	interactive, tty bool
	env              []string
	dir, user        string
}

func newExecFlags(cmd *cobra.Command) *execFlags {
	e := &execFlags{}
	f := cmd.Flags()
	f.BoolVarP(&e.interactive, "interactive", "i", false, "pass stdin to the command")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the command a terminal (implies -i)")
	f.StringArrayVarP(&e.env, "env", "e", nil, "set `KEY=VALUE` in its environment; KEY alone takes the value it has here")
	f.StringVarP(&e.dir, "workdir", "w", "", "`DIR` to run it in (default: the user's home)")
	f.StringVarP(&e.user, "user", "u", "", "`USER` to run it as: a name or number, optionally :GROUP (default root)")
	return e
}

// request makes the guest's request of the flags. It refuses -t where stdin is no terminal.
func (e *execFlags) request(a *app, cmd *cobra.Command, argv []string) (guest.ExecRequest, error) {
	if argv[0] == "" {
		return guest.ExecRequest{}, usage(cmd, "the command is empty")
	}
	r := guest.ExecRequest{Argv: argv, Dir: e.dir, User: e.user, TTY: e.tty, Stdin: e.interactive || e.tty}
	for _, kv := range e.env {
		key, _, has := strings.Cut(kv, "=")
		if key == "" {
			return r, usage(cmd, "--env %q: there is no name before the '='", kv)
		}
		if !has {
			value, ok := os.LookupEnv(key)
			if !ok {
				continue // as Docker: what is not set here is not set there
			}
			kv = key + "=" + value
		}
		r.Env = append(r.Env, kv)
	}
	if !e.tty {
		return r, nil
	}
	fd := int(a.in.Fd())
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
