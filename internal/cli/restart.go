package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newRestart(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restart [flags] NAME... | --all",
		Short: "Stop VMs, start them again, and wait until they are ready",
		Long: `Stop VMs as 'banger vm stop' does, start them again, and wait until they are ready. Their disks are kept; stopped ones are
only started.`,
		Example: "  banger vm restart web\n  banger vm restart --time 60 web 'test-*'",
	}
	grace := graceFlag(cmd)
	return eachCommand(a, cmd, each{do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
		_, err := c.Restart(ctx, name, api.StopRequest{GraceMs: int(grace.Milliseconds())}, onEvent)
		return err
	}})
}
