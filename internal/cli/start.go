package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newStart(a *app) *cobra.Command {
	return eachCommand(a, &cobra.Command{
		Use:     "start NAME... | --all",
		Short:   "Start stopped VMs and wait until they are ready",
		Long:    "Start stopped VMs and wait until they are ready. Their disks are as they were left.",
		Example: "  banger vm start web\n  banger vm start web 'test-*'\n  banger vm start --all",
	}, each{do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
		_, err := c.Start(ctx, name, onEvent)
		return err
	}})
}
