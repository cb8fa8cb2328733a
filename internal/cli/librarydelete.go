package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
)

func newImageDelete(a *app) *cobra.Command {
	return deleteCommand(a, imageLibrary, &cobra.Command{
		SuggestFor: []string{"rmi"},

		Short: "Delete images that no VM stands on",
		Long: `Delete images, and print their names. The files of an image are deleted with the last of its names.

One that a VM stands on stays, whether the VM runs or not. With --all, or a pattern of names, it first tells which images
these are, and asks.`,
		Example: "  banger image delete dev\n  banger image rm 'test-*' --yes",
	})
}

func newKernelDelete(a *app) *cobra.Command {
	return deleteCommand(a, kernelLibrary, &cobra.Command{
		Short: "Delete kernels that no VM boots from",
		Long: `Delete kernels, each with its modules, and print their names. The files of a kernel are deleted with the last of its names.

One that a VM boots from stays, whether the VM runs or not. With --all, or a pattern of names, it first tells which kernels
these are, and asks.`,
		Example: "  banger kernel delete installed\n  banger kernel rm 'linux-image-*' --yes",
	})
}

// deleteCommand completes cmd, which has its texts.
func deleteCommand(a *app, l library, cmd *cobra.Command) *cobra.Command {
	cmd.Use, cmd.Aliases = "delete NAME... | --all", []string{"rm"}
	all := cmd.Flags().BoolP("all", "a", false, "all "+l.noun+"s there are")
	yes := cmd.Flags().BoolP("yes", "y", false, "delete what --all or a pattern selects without a question")
	force := forceFlag(cmd)
	quiet := quietFlag(cmd)
	cmd.ValidArgsFunction = a.completeLibrary(l)
	cmd.Args = namesOr(all)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		for _, n := range given {
			if err := checkPattern(n); isPattern(n) && err != nil {
				return err
			}
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, _ *progress) error {
			names := once(given)
			if *all || slices.ContainsFunc(given, isPattern) {
				there, err := l.list(ctx, c)
				if err != nil {
					return err
				}
				if names = there; !*all {
					if names, err = choose(given, there, l.noun, l.noun); err != nil {
						return err
					}
				}
				if len(names) > 0 && !*yes && !*force {
					if ok, err := a.agreed(ctx, "delete "+l.noun, "Delete "+plural(len(names), l.noun)+"?", names); err != nil || !ok {
						return err
					}
				}
			}
			errs := make([]error, len(names))
			for i, name := range names { // in turn: two names may be of the same files
				errs[i] = l.remove(ctx, c, name, "")
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return a.outcome(names, errs)
		})
	}
	return cmd
}
