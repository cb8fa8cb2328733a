package cli

import (
	"context"
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
	job    string // --exec
}

func newLogs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Print a VM's console, what the daemon did with it, or what a command in it wrote",
		Long: `Print what a VM's kernel and init wrote to its console, of a stopped VM as well.

With --daemon it is what the daemon noted about the VM, with times. With --exec it is what is kept of the output of a job
('banger vm jobs' lists them), stdout and stderr apart: as 'banger vm attach', but it only looks, whatever becomes of it.

--since goes with --daemon only. A console and a command's output are kept byte by byte as they came, without the times at
which they did: of a console -n prints the last lines.`,
		Example: "  banger vm logs web\n  banger vm logs -n 20 -f web\n  banger vm logs --daemon --since 10m web\n  banger vm logs -f --exec 3f2a web",
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
	since := cmd.Flags().String("since", "", "with --daemon: print only what is younger than `TIME`, as 10m or 2006-01-02T15:04:05Z")
	cmd.MarkFlagsMutuallyExclusive("console", "daemon", "exec")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		changed := cmd.Flags().Changed
		switch {
		case changed("exec") && l.job == "":
			return usage(cmd, "--exec: missing JOB")
		case changed("exec") && tail.lines >= 0:
			return usage(cmd, "--exec and --tail contradict each other: of a job all is printed that is kept")
		case changed("since") && changed("exec"):
			return usage(cmd, "--since and --exec contradict each other: a command's output is kept without times; 'banger vm attach --new' prints only what comes")
		case changed("since") && !l.query.Daemon:
			return usage(cmd, "--since needs --daemon: a console is kept without times; -n prints its last lines")
		case changed("since"):
			if l.query.Since, err = parseSince(time.Now(), *since); err != nil {
				return usage(cmd, "--since %w", err)
			}
		}
		l.query.Follow, l.query.Tail = l.follow, tail.lines
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if l.job != "" {
				return l.exec(ctx, c, args[0])
			}
			return l.print(ctx, c, args[0])
		})
	}
	return cmd
}

// parseSince reads a moment, or how long before now it was.
func parseSince(now time.Time, s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q: it must be a span as 10m or 1h30m, or a moment as 2006-01-02T15:04:05Z", s)
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
	conn, err := c.Attach(ctx, name, guest.AttachRequest{Job: l.job, KeptOnly: !l.follow, Watch: true})
	if err != nil {
		return err
	}
	_, err = guest.RunExec(ctx, conn, guest.Stdio{Out: l.out, Err: l.err, Dropped: func(n uint64) {
		fmt.Fprintf(l.err, "[%d bytes dropped]\n", n)
	}})
	if vm.CodeOf(err) == vm.CodeUnavailable {
		return vm.Errorf(vm.CodeUnavailable, "VM %s: %w", name, err)
	}
	return err
}
