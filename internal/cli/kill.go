package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newKill(a *app) *cobra.Command {
	return eachCommand(a, &cobra.Command{
		Use:   "kill NAME... | --all",
		Short: "End running VMs at once",
		Long: `End running VMs at once, as if their power was cut: what they had not written to disk is lost. 'banger vm stop' is the
gentle way.`,
		Example: "  banger vm kill web\n  banger vm kill 'test-*'\n  banger vm kill --all",
	}, each{do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
		_, err := c.Stop(ctx, name, api.StopRequest{Force: true}, onEvent)
		return err
	}})
}
