package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newReset(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset [flags] NAME... | --all",
		Short: "Give stopped VMs a fresh system disk",
		Long: `Give stopped VMs a fresh system disk, as their image has it. What was installed or changed outside /root is lost, and cannot be
had back; the work disk at /root stays, as do name, addresses, ssh host key and labels. The VM keeps the image that it was made
with, whatever that image's name stands for now.

A VM that runs is refused; --force stops it first, as 'banger vm stop' does. It is not started again. With --all, or a pattern
of names, it first tells which VMs these are, and asks.`,
		Example: "  banger vm reset web\n  banger vm reset --force web && banger vm start web\n  banger vm reset --yes 'test-*'",
	}
	force := cmd.Flags().BoolP("force", "f", false, "stop what runs")
	yes := cmd.Flags().BoolP("yes", "y", false, "reset what --all or a pattern selects without a question")
	return eachCommand(a, cmd, each{
		do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
			_, err := c.Reset(ctx, name, api.ResetRequest{Force: *force}, onEvent)
			return err
		},
		sure: func(ctx context.Context, names []string) (bool, error) {
			if *yes {
				return true, nil
			}
			return a.agreed(ctx, "remove the system disk of VM", "Remove "+plural(len(names), "system disk")+"?", names)
		},
	})
}
