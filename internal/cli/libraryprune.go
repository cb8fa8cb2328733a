package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
)

func newImagePrune(a *app) *cobra.Command {
	return pruneCommand(a, imageLibrary, "stands on", &cobra.Command{
		Short: "Delete images that no VM stands on",
		Long: `Delete all images that no VM stands on, whether it runs or not, and print their names. It first tells which images these are, and asks.
One that a VM is being created from meanwhile, or that has been built anew, is kept.

The default image goes as well, and is built again when a VM needs it.`,
		Example: "  banger image prune\n  banger image prune --yes",
	})
}

func newKernelPrune(a *app) *cobra.Command {
	return pruneCommand(a, kernelLibrary, "boots from", &cobra.Command{
		Short: "Delete kernels that no VM boots from",
		Long: `Delete all kernels that no VM boots from, whether it runs or not, and print their names. It first tells which kernels these are, and
asks. One that a VM is being created with meanwhile, or that has been imported anew, is kept.

The default kernel goes as well, and is fetched again when a VM needs it.`,
		Example: "  banger kernel prune\n  banger kernel prune --yes",
	})
}

// pruneCommand completes cmd, which has its texts.
func pruneCommand(a *app, l library, verb string, cmd *cobra.Command) *cobra.Command {
	cmd.Use, cmd.Args = "prune [flags]", atMost()
	yes := cmd.Flags().BoolP("yes", "y", false, "delete them without a question")
	force := forceFlag(cmd)
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, _ *progress) error {
			unused, err := l.unused(ctx, c)
			if err != nil {
				return err
			}
			if len(unused) == 0 {
				fmt.Fprintf(a.err, "banger: nothing to delete: there is no %s that no VM %s\n", l.noun, verb)
				return nil
			}
			var names, plan []string
			for _, e := range unused {
				names = append(names, e.name)
				plan = append(plan, fmt.Sprintf("%s (%s, created %s)", e.name, formatSize(e.size), age(time.Now(), e.created)))
			}
			if !*yes && !*force {
				if ok, err := a.agreed(ctx, "delete "+l.noun, "Delete "+plural(len(names), l.noun)+"?", plan); err != nil || !ok {
					return err
				}
			}
			errs := make([]error, len(names))
			for i, e := range unused { // in turn: two names may be of the same files
				errs[i] = l.remove(ctx, c, e.name, e.digest)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return a.outcome(names, errs)
		})
	}
	return cmd
}
