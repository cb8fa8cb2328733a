package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
)

func newLogs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logs [flags] NAME",
		Short:   "Print a VM's console",
		Long:    "Print what a VM's kernel and init wrote to its console, of a stopped VM as well.",
		Example: "  banger vm logs web\n  banger vm logs -n 20 -f web",
		Args:    exactly("NAME"),

		ValidArgsFunction: a.completeVMs(1),
	}
	follow := cmd.Flags().BoolP("follow", "f", false, "go on printing as the console grows, until Ctrl-C")
	tail := cmd.Flags().IntP("tail", "n", -1, "print only the last `LINES`")
	cmd.Flags().Lookup("tail").DefValue = "all"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("tail") && *tail < 0 {
			return usage(cmd, "--tail %d: it must not be negative", *tail)
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			log, err := c.Logs(ctx, args[0], *follow, *tail)
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(a.out, log)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		})
	}
	return cmd
}
