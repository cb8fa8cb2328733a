package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newDelete(a *app) *cobra.Command {
	cmd := eachCommand(a, &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Remove VMs with everything of them",
		Long: `Remove VMs with everything of them: disks, logs, addresses. Running ones are ended first. It returns when nothing is
left, and cannot be undone.`,
		Example: "  banger vm delete web\n  banger vm rm web db",
	}, func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
		return c.Delete(ctx, name, onEvent)
	})
	cmd.Flags().BoolP("force", "f", false, "") // fingers used to Docker write -f: what runs is ended all the same
	_ = cmd.Flags().MarkHidden("force")
	return cmd
}
