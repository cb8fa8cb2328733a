package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func newCommit(a *app) *cobra.Command {
	var request api.CommitRequest
	cmd := &cobra.Command{
		Use:   "commit [flags] NAME IMAGE",
		Short: "Make an image of a stopped VM's system disk",
		Long: `Make an image, IMAGE, of what a stopped VM has on its system disk, and print its name. The VM stays as it is.

The work disk, /root in the guest, is no part of it: each VM has its own. Nor is what makes a machine itself, its machine-id and
host keys of an ssh server; VMs that are made of the image get their own.

A VM that runs, or is paused, is refused: what its guest has in memory is on no disk yet. One that is started meanwhile starts, and
the commit fails and leaves nothing.`,
		Example: "  banger vm stop web && banger vm commit web web-ready\n  banger vm run --image web-ready --name second -d",
		Args:    exactly("NAME", "IMAGE"),

		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.Flags().BoolVarP(&request.Force, "force", "f", false, "take the name from another image that has it")
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request.Image = args[1]
		return a.printMade(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) (string, error) {
			image, err := c.Commit(ctx, args[0], request, p.event)
			if err != nil {
				return "", err
			}
			return image.Name, nil
		})
	}
	return cmd
}
