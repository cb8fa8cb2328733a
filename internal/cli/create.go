package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
)

func newCreate(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a VM without starting it",
		Long: `Make a VM without starting it, and print its name. 'banger vm start' starts it.

An image or kernel that is not there yet is built or imported first. config.toml can set other defaults than those below.

With --network user the guest reaches services that listen only on this host's loopback, at 10.0.2.2.

` + restartHelp,
		Example: "  banger vm create --name web --memory 1G --vcpu 2 -p 8080:80\n  banger vm start web",
		Args:    atMost(),
	}
	flags := newVMFlags(a, cmd)
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		request, err := flags.create(cmd)
		if err != nil {
			return err
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			record, err := c.Create(ctx, request, p.event)
			if err != nil {
				return err
			}
			p.finish(true)
			_, err = fmt.Fprintln(a.out, record.Name)
			return err
		})
	}
	return cmd
}

// quietFlag adds -q to a command that shows progress.
func quietFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().BoolP("quiet", "q", false, "show no progress")
}
