package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger/internal/api/client"
	"banger/internal/guest"
)

func newSignal(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "signal NAME JOB [SIGNAL]",
		Short: "Send a command that runs in a VM a signal",
		Long: `Send a job of a VM a signal: to the command and what it has started in its process group; where it has a terminal, to what runs in
its foreground. SIGNAL is a name or a number, as TERM, SIGKILL or 2; without one it is TERM.`,
		Example:           "  banger vm signal web 3f2a\n  banger vm signal web 3f2a KILL",
		ValidArgsFunction: a.completeJobs,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactly("NAME", "JOB")(cmd, args)
			}
			return atMost("NAME", "JOB", "SIGNAL")(cmd, args)
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		signal := "TERM"
		if len(args) == 3 {
			signal = args[2]
		}
		if !isSignal(signal) {
			return usage(cmd, "there is no signal %q", signal)
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			return c.SignalJob(ctx, args[0], guest.SignalRequest{Job: args[1], Signal: signal})
		})
	}
	return cmd
}

// isSignal says whether a guest can know a signal by this name or number.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n > 0 && n <= 64
	}
	return unix.SignalNum("SIG"+strings.TrimPrefix(strings.ToUpper(s), "SIG")) != 0
}
