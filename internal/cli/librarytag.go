package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func newImageTag(a *app) *cobra.Command {
	return tagCommand(a, imageLibrary, &cobra.Command{
		Short: "Give an image a second name",
		Long: `Give the image NAME a second name, NEW, and print that. Both stand for the same files, which are deleted with the last of the names.

Where NEW is another image's name it is refused; with --force the name is taken from that one. VMs stay on the image that they were
made from.`,
		Example: "  banger image tag debian-bookworm base\n  banger image tag --force dev debian-bookworm",
	})
}

func newKernelTag(a *app) *cobra.Command {
	return tagCommand(a, kernelLibrary, &cobra.Command{
		Short: "Give a kernel a second name",
		Long: `Give the kernel NAME a second name, NEW, and print that. Both stand for the same files, which are deleted with the last of the names.

Where NEW is another kernel's name it is refused; with --force the name is taken from that one. VMs keep the kernel that they were
made with.`,
		Example: "  banger kernel tag installed good\n  banger kernel tag --force good debian-6.12-cloud",
	})
}

// tagCommand completes cmd, which has its texts.
func tagCommand(a *app, l library, cmd *cobra.Command) *cobra.Command {
	cmd.Use, cmd.Args = "tag [flags] NAME NEW", exactly("NAME", "NEW")
	cmd.ValidArgsFunction = a.completeLibrary(l)
	force := cmd.Flags().BoolP("force", "f", false, "take the name from another "+l.noun+" that has it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if err := l.tag(ctx, c, args[0], api.TagRequest{Name: args[1], Force: *force}); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.out, args[1])
			return err
		})
	}
	return cmd
}
