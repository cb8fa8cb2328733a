package cli

import (
	"context"
	"math"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/api/client"
	"banger/internal/guest"
)

func newAttach(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attach [flags] NAME JOB",
		Short: "Join a command that runs in a VM, or get what it wrote",
		Long: `Join a job of a VM: print what is kept of its output, stdout and stderr apart, then what it writes from then on, and exit with
its status. Several clients may be attached to one job; each gets all. What is not kept any more is told on stderr, as
"[n bytes dropped]". A job of -d or --keep that has ended is still there to be asked for.

Attached, Ctrl-C is the command's: it may end it. To only look use 'banger vm logs --exec JOB NAME', with -f to go on looking:
Ctrl-C there ends the looking, and the command goes on.

With -i stdin is passed to a command that was started with -i or -t. On a terminal ctrl-p ctrl-q leaves a command, which
goes on if it was started with -d or --keep, or has another client. That is so where nothing of stdin is passed, in the foreground, so that other
keys are dropped, and with -i where the command was started with -t; elsewhere with -i they are input as any.

` + signalHelp + `

` + jobsHelp + `

Exit status: the command's own; 124 when the time of its --timeout was over, 125 when banger failed.`,
		Example:           "  banger vm attach web 3f2a\n  banger vm attach -i web 3f2a\n  banger vm attach --new web 3f2a\n  banger vm logs -f --exec 3f2a web      only look",
		Args:              exactly("NAME", "JOB"),
		ValidArgsFunction: a.completeJobs,
	}
	interactive := cmd.Flags().BoolP("interactive", "i", false, "pass stdin to the command")
	from := cmd.Flags().Int64("from", 0, "leave out the first `BYTES` of its output, both streams together")
	fresh := cmd.Flags().Bool("new", false, "leave out what was kept: only what it writes from now on")
	exclusive(cmd, "from", "new")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *from < 0 {
			return usage(cmd, "--from %d: it must not be negative", *from)
		}
		if *fresh {
			*from = math.MaxInt64
		}
		name := args[0]
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			job, err := findJob(ctx, c, name, args[1])
			if err != nil {
				return err
			}
			if *interactive && !job.Stdin {
				return usage(cmd, "-i: job %s reads no input: it was started without -i", clean(job.ID))
			}
			req := guest.AttachRequest{Job: job.ID, From: *from}
			// What the session is like; that a client may leave is what the job knows.
			how := guest.ExecRequest{Stdin: *interactive, LingerMs: guest.Linger}
			if !job.Keep {
				how.LingerMs = cutOff.Milliseconds()
			}
			if fd := int(a.in.Fd()); job.TTY && *interactive && term.IsTerminal(fd) {
				how.TTY = true
				if cols, rows, err := term.GetSize(fd); err == nil {
					req.Rows, req.Cols = uint16(rows), uint16(cols)
				}
			}
			conn, err := c.Attach(ctx, name, req)
			if err != nil {
				return err
			}
			return a.session(ctx, conn, how, command{vm: name, from: uint64(min(*from, job.Output)), leavable: true, client: c})
		})
	}
	return cmd
}
