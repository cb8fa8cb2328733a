package cli

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/guest"
	"banger/internal/vm"
)

// loginShell finds the guest's best shell; the guest knows, we do not.
var loginShell = []string{"/bin/sh", "-c", `for s in "$SHELL" /bin/bash /bin/sh; do [ -x "$s" ] && exec "$s" -l; done`}

// run is one `vm run`.
type run struct {
	*app
	create api.CreateRequest
	exec   guest.ExecRequest
	remove bool // --rm
	quiet  bool

	maybeImage bool // the command's first word may have been meant as an image's name, as with Docker
}

func newRun(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] [--] [COMMAND [ARG...]]",
		Short: "Make a VM and run a command in it",
		Long: `Make a VM, start it, run a command in it, and exit with the command's status.

The VM stays, and its name is printed on stderr, unless --rm is given. Without a command, on a terminal, a shell opens;
with -d the VM starts and its name is printed on stdout. Input that is not a terminal is passed to the command.
An image or kernel that is not there yet is built or imported first. config.toml can set other defaults than
those below.

Unlike with Docker, the image is named with --image, not before the command; and there are no volumes: 'banger vm cp' copies files
in, and -v is --verbose. A command that has the name of an image stands behind --.

With --network user the guest reaches services that listen only on this host's loopback, at 10.0.2.2.

` + restartHelp + `

` + signalHelp + `

Without --rm the command goes on for five minutes when its client is killed, or its daemon: see 'banger vm exec --help'.

Exit status: the command's own; 124 when the time of --timeout was over, 125 when banger failed, 126 when the command could
not be invoked, 127 when it was not found, 130 on Ctrl-C.`,
		Example: `  banger vm run -- cat /etc/hostname
  banger vm run --rm -- sh -c 'exit 42'
  echo hi | banger vm run --rm -- cat
  banger vm run --name web --memory 1G -p 8080:80 -d
  banger vm run -it --rm -- bash
  banger vm run --rm --timeout 10m --env-file ci.env -- make test`,
	}
	cmd.Flags().SetInterspersed(false)
	vmFlags, execFlags := newVMFlags(a, cmd), newExecFlags(cmd)
	remove := cmd.Flags().Bool("rm", false, "remove the VM when the command ends")
	detach := cmd.Flags().BoolP("detach", "d", false, "start the VM, print its name, and leave it running")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "show neither progress nor, at the end, the name of a VM that stays")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		r := run{app: a, remove: *remove, quiet: *quiet}
		var err error
		if r.create, err = vmFlags.create(cmd); err != nil {
			return err
		}
		if *remove && r.create.Restart != "" && r.create.Restart != vm.RestartNo {
			return usage(cmd, "--rm and --restart contradict each other: a VM that goes with its command is not started again")
		}
		if err := a.checkVolume(cmd, argv); err != nil {
			return err
		}
		r.maybeImage = len(argv) > 0 && cmd.ArgsLenAtDash() != 0 && !cmd.Flags().Changed("image")
		r.create.Start, r.create.AutoRemove, r.create.NoWait = true, *remove, !*detach
		if *detach {
			if err := checkDetached(cmd, argv, *remove); err != nil {
				return err
			}
			return a.with(cmd.Context(), *quiet, r.detached)
		}
		if len(argv) == 0 {
			if !term.IsTerminal(int(a.in.Fd())) || !term.IsTerminal(int(a.out.Fd())) {
				return usage(cmd, "missing command: there is no terminal to open a shell on")
			}
			argv, execFlags.tty = loginShell, true
		}
		if !cmd.Flags().Changed("interactive") && !term.IsTerminal(int(a.in.Fd())) {
			execFlags.interactive = true
		}
		if r.exec, err = execFlags.request(a, cmd, argv, false); err != nil {
			return err
		}
		if *remove {
			r.exec.LingerMs = 0 // the VM does not outlive its client either
		}
		return a.with(cmd.Context(), *quiet, r.attached)
	}
	return cmd
}

// checkDetached refuses what makes no sense with -d.
func checkDetached(cmd *cobra.Command, argv []string, remove bool) error {
	if remove {
		return usage(cmd, "--rm and -d contradict each other: a detached VM has no command whose end would remove it")
	}
	if len(argv) > 0 {
		return usage(cmd, "-d takes no command: start the VM, then use 'banger vm exec NAME -- %s'; an image is named with --image", argv[0])
	}
	for _, flag := range []string{"interactive", "tty", "env", "env-file", "workdir", "user", "timeout"} {
		if cmd.Flags().Changed(flag) {
			return usage(cmd, "--%s and -d contradict each other: a detached VM runs no command", flag)
		}
	}
	return nil
}

// detached starts the VM and waits until it is ready.
func (r run) detached(ctx context.Context, c *client.Client, p *progress) error {
	record, err := r.begin(ctx, c, p)
	if err != nil {
		return err
	}
	p.finish(true)
	_, err = fmt.Fprintln(r.out, record.Name)
	return err
}

// begin makes the VM. Interrupted, it removes what it may have begun.
func (r run) begin(ctx context.Context, c *client.Client, p *progress) (record *vm.VMRecord, err error) {
	err = r.orRemoved(ctx, c, p, func(report vm.Report) (err error) {
		record, err = c.Create(ctx, r.create, report)
		return err
	})
	return record, err
}

// orRemoved has do make a VM, whose events it reports and no other's. Interrupted, it removes what do may have begun.
func (a *app) orRemoved(ctx context.Context, c *client.Client, p *progress, do func(vm.Report) error) error {
	var begun atomic.Value // the id, as soon as an event tells it
	err := do(func(e vm.Event) {
		if e.VM != "" {
			begun.Store(e.VM)
		}
		p.event(e)
	})
	if id, ok := begun.Load().(vm.ID); ok && ctx.Err() != nil {
		p.finish(false)
		a.removeVM(ctx, c, id)
	}
	return err
}

// attached runs the command and removes the VM where it shall not stay: with --rm, and when Ctrl-C came before the
// command began.
func (r run) attached(ctx context.Context, c *client.Client, p *progress) error {
	if err := r.checkImage(ctx, c); err != nil {
		return err
	}
	record, err := r.begin(ctx, c, p)
	if err != nil {
		return err
	}
	err = r.open(ctx, c, p, record)
	p.finish(false)
	if r.remove {
		r.removeVM(ctx, c, record.ID)
	} else if gone := (unstarted{}); !r.quiet && !errors.As(err, &gone) {
		fmt.Fprintf(r.err, "banger: VM %s stays; 'banger vm delete %s' removes it\n", record.Name, record.Name)
	}
	return err
}

// open waits for the VM to be ready, showing how it gets there, and holds the command's session.
func (r run) open(ctx context.Context, c *client.Client, p *progress, record *vm.VMRecord) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = c.Events(following, string(record.ID), p.event) }() // what it misses is only not shown
	p.waiting("starting " + record.Name)
	conn, err := c.Exec(ctx, string(record.ID), r.exec)
	stop()
	p.finish(err == nil)
	if err != nil {
		if ctx.Err() != nil && !r.remove {
			r.removeVM(ctx, c, record.ID)
			return unstarted{err}
		}
		return err
	}
	return r.session(ctx, conn, r.exec, command{vm: record.Name, client: c})
}

// unstarted wraps the error of a run that was interrupted before its command began: nothing of the VM stays.
type unstarted struct{ error }

func (u unstarted) Unwrap() error { return u.error }

// removeVM removes a VM even though the command was interrupted, and returns when nothing of it is left. The daemon
// may have been quicker. A failure is told, but the command's exit status stays what it was.
func (a *app) removeVM(ctx context.Context, c *client.Client, id vm.ID) {
	err := c.Delete(context.WithoutCancel(ctx), string(id), nil)
	if err != nil && vm.CodeOf(err) != vm.CodeNotFound {
		a.report(err)
	}
}
