package cli

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/guest"
)

func newExec(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME [--] COMMAND [ARG...]",
		Short: "Run a command in a running VM",
		Long: `Run a command in a running VM, and exit with the command's status. A VM that is starting is waited for.

Stdin is passed only with -i or -t.

` + signalHelp + `

A command whose client leaves gets SIGHUP, as with ssh. One whose client was cut off (killed, or the daemon was) goes on for
five minutes: 'banger vm jobs' lists it, and 'banger vm attach' gives what was missed and goes on. With --keep it goes on
however its client goes, with -d it has none from the beginning: then the command is started, and its id printed. With --keep
on a terminal, ctrl-p ctrl-q leaves it, but for one that gets input by -i without -t; where it gets none, what else is typed
meanwhile is dropped.

` + jobsHelp + `

Exit status: the command's own; 124 when the time of --timeout was over, 125 when banger failed, 126 when the command could
not be invoked, 127 when it was not found.`,
		Example: `  banger vm exec web -- uname -r
  banger vm exec -it web bash
  echo hi | banger vm exec -i web -- tee /root/hi
  banger vm exec -e LANG=C -w /srv -u nobody web -- ls
  banger vm exec --timeout 10m --env-file ci.env web -- make test
  banger vm exec -d web -- make world`,
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.Flags().SetInterspersed(false)
	flags := newExecFlags(cmd)
	detach := cmd.Flags().BoolP("detach", "d", false, "start the command, print its id, and leave it running")
	keep := cmd.Flags().Bool("keep", false, "have the command go on when this client leaves it or is cut off")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, argv, err := nameAndCommand(cmd, args)
		if err != nil {
			return err
		}
		if len(argv) == 0 {
			return usage(cmd, "missing command")
		}
		request, err := flags.request(a, cmd, argv, *detach)
		if err != nil {
			return err
		}
		if *detach || *keep {
			request.LingerMs = guest.Linger
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			arrived := p.follow(ctx, c, name)
			conn, err := c.Exec(ctx, name, request)
			arrived(err == nil)
			p.finish(err == nil)
			if err != nil {
				return err
			}
			if *detach {
				return a.detached(ctx, conn, name)
			}
			return a.session(ctx, conn, request, command{vm: name, leavable: *keep, client: c})
		})
	}
	return cmd
}

// detached leaves a command as soon as it has begun, and prints its job's id.
func (a *app) detached(ctx context.Context, conn net.Conn, name string) error {
	job, started, begun := "", false, make(chan struct{})
	status, err := guest.RunExec(ctx, conn, guest.Stdio{Detach: begun, Started: func(j guest.JobStarted) {
		if !started {
			close(begun)
		}
		job, started = j.Job, true
	}})
	switch {
	case job != "": // it may even have ended
		_, err = fmt.Fprintln(a.out, job)
	case started:
		err = noJobs(name)
	case err == nil && status.Reason != "":
		a.report(errors.New(status.Reason))
		err = exit(status.Code)
	}
	return err
}
