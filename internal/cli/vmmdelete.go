package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func newVMMDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete firecracker VERSION...",
		Aliases: []string{"rm"},
		Short:   "Delete versions that were installed",
		Long: `Delete versions of Firecracker that 'banger vmm install' has installed, each with its jailer, and print them. VMs that run keep
what they have.

The version that VMs are started with stays, for as long as there is a VM of it, and so does one that config.toml names.`,
		Example: "  banger vmm delete firecracker 1.11.0\n  banger vmm rm firecracker 1.10.1 1.11.0",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactly("firecracker", "VERSION")(cmd, args)
			}
			return nil
		},
		ValidArgsFunction: a.completeVMMVersions,
	}
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, versions := args[0], args[1:]
		for i := range versions {
			versions[i] = strings.TrimPrefix(versions[i], "v")
		}
		versions = once(versions)
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, _ *progress) error {
			errs := make([]error, len(versions))
			for i, v := range versions { // in turn: each may be in use because another is gone
				errs[i] = c.DeleteVMM(ctx, name, v)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return a.outcome(versions, errs)
		})
	}
	return cmd
}

// completeVMMVersions completes the name, then the versions that are installed. It starts no daemon.
func (a *app) completeVMMVersions(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeVMM(cmd, args, word)
	}
	c, _, err := a.connectRunning()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	vmms, _ := c.VMMs(cmd.Context())
	var out []cobra.Completion
	for _, v := range vmms {
		if v.Origin == api.OriginInstalled && !slices.Contains(args[1:], v.Version) {
			out = append(out, v.Version)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
