package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/guest"
	"banger/internal/vm"
)

// logs is one `vm logs`.
type logs struct {
	*app
	follow bool
	query  client.LogQuery

	job          string // --exec
	since, until *guest.Moment
	tail         *int
	times        bool
}

func newLogs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Print a VM's console, what the daemon did with it, or what a command in it wrote",
		Long: `Print what a VM's kernel and init wrote to its console, of a stopped VM as well.

With --daemon it is what the daemon noted about the VM, with times. With --exec it is what is kept of the output of a job
('banger vm jobs' lists them), stdout and stderr apart: as 'banger vm attach', but it only looks, whatever becomes of it.

--since goes with --daemon and --exec. A console is kept byte by byte as the VM's machine wrote it, without the times at which it
did: -n prints its last lines.

With --exec, -n counts the lines of both streams in the order in which they came: of all, or of what --since and --until leave.

With --exec --since, --until and -t go by when the output came, and by the guest's clock as it was then: banger sets that when the
guest boots, after a resume, and when a daemon takes the VM over. A span as 10m is one before the guest's now. The times are exact
to a millisecond, and coarser for a command that has written at very many different times: rather too much is printed then than
too little. Where some of the output that may be younger is not kept any more, that is told on stderr, as "[n bytes dropped]".`,
		Example: "  banger vm logs web\n  banger vm logs -n 20 -f web\n  banger vm logs --daemon --since 10m web\n  banger vm logs -f --exec 3f2a -n 20 web\n  banger vm logs -t --exec 3f2a --since 10m web",
		Args:    exactly("NAME"),

		ValidArgsFunction: a.completeVMs(1),
	}
	l := logs{app: a}
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on printing what comes, until Ctrl-C")
	tail := lastFlag{-1}
	cmd.Flags().VarP(&tail, "tail", "n", "print only the last `LINES`, a number or all")
	cmd.Flags().Bool("console", false, "print the console, as without these flags")
	cmd.Flags().BoolVar(&l.query.Daemon, "daemon", false, "print what the daemon noted about the VM")
	cmd.Flags().StringVar(&l.job, "exec", "", "print what the `JOB` wrote")
	_ = cmd.RegisterFlagCompletionFunc("exec", a.completeJobsOf)
	since := cmd.Flags().String("since", "", "with --daemon, --exec: print only what is younger than `TIME`, as 10m or 2006-01-02T15:04:05Z")
	until := cmd.Flags().String("until", "", "with --exec: print only what is not younger than `TIME`")
	cmd.Flags().BoolVarP(&l.times, "timestamps", "t", false, "with --exec: print before each line when it came")
	exclusive(cmd, "console", "daemon", "exec")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		changed := cmd.Flags().Changed
		switch {
		case changed("exec") && l.job == "":
			return usage(cmd, "--exec: missing JOB")
		case changed("since") && !l.query.Daemon && l.job == "":
			return usage(cmd, "--since needs --daemon or --exec: a console is kept without times; -n prints its last lines")
		case changed("until") && l.job == "":
			return usage(cmd, "--until needs --exec")
		case changed("until") && l.follow:
			return usage(cmd, "--until and --follow contradict each other")
		case l.times && !l.query.Daemon && l.job == "": // what the daemon noted has times in it
			return usage(cmd, "--timestamps needs --exec: a console is kept without times")
		}
		if changed("since") {
			if l.since, err = parseMoment(*since); err != nil {
				return usage(cmd, "--since %w", err)
			}
		}
		if changed("until") {
			if l.until, err = parseMoment(*until); err != nil {
				return usage(cmd, "--until %w", err)
			}
		}
		if l.since != nil && l.query.Daemon {
			l.query.Since = l.since.Time(time.Now())
		}
		l.query.Follow, l.query.Tail = l.follow, tail.lines
		if tail.lines >= 0 {
			l.tail = &tail.lines
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if l.job != "" {
				return l.exec(ctx, c, args[0])
			}
			return l.print(ctx, c, args[0])
		})
	}
	return cmd
}

// parseMoment reads a moment, or how long before now it was.
func parseMoment(s string) (*guest.Moment, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return &guest.Moment{Ago: d}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return &guest.Moment{At: &t}, nil
	}
	return nil, fmt.Errorf("%q: it must be a span as 10m or 1h30m, or a moment as 2006-01-02T15:04:05Z", s)
}

func (l logs) print(ctx context.Context, c *client.Client, name string) error {
	log, err := c.Logs(ctx, name, l.query)
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = io.Copy(l.out, log)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// exec prints what a job wrote. Its status is not ours.
func (l logs) exec(ctx context.Context, c *client.Client, name string) error {
	conn, err := c.Attach(ctx, name, guest.AttachRequest{Job: l.job, KeptOnly: !l.follow, Watch: true, Since: l.since, Until: l.until, Times: l.times, Tail: l.tail})
	if err != nil {
		return err
	}
	stdio := guest.Stdio{Out: l.out, Err: l.err, Times: l.times || l.since != nil || l.until != nil, Tail: l.tail != nil, Dropped: func(n uint64) {
		fmt.Fprintf(l.err, "[%d bytes dropped]\n", n)
	}}
	if l.times {
		var when time.Time
		stdio.When = func(t time.Time) { when = t }
		stdio.Out, stdio.Err = &stamped{w: l.out, when: &when}, &stamped{w: l.err, when: &when}
	}
	_, err = guest.RunExec(ctx, conn, stdio)
	lacks := ""
	switch {
	case errors.Is(err, guest.ErrNoTimes):
		lacks = "does not know when output came"
	case errors.Is(err, guest.ErrNoTail):
		lacks = "does not look for its last lines"
	}
	if lacks != "" {
		return vm.Errorf(vm.CodeUnavailable, "the agent in VM %s is that of an older banger, which %s", name, lacks).
			WithHint("without --since, --until, -t and -n all that is kept is printed; banger vm restart %s gives it this one's agent, and ends its jobs", name)
	}
	if vm.CodeOf(err) == vm.CodeUnavailable {
		return vm.Errorf(vm.CodeUnavailable, "VM %s: %w", name, err)
	}
	return err
}
