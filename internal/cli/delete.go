package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME... | --all",
		Aliases: []string{"rm"},
		Short:   "Remove VMs with everything of them",
		Long: `Remove VMs with everything of them: disks, logs, addresses. Running ones are ended first. It returns when nothing is
left, and cannot be undone. With --all, or a pattern of names, it first tells which VMs these are, and asks.`,
		Example: "  banger vm delete web\n  banger vm rm web db\n  banger vm rm 'test-*'\n  banger vm rm --all --yes",
	}
	yes := cmd.Flags().BoolP("yes", "y", false, "remove what --all or a pattern selects without a question")
	force := forceFlag(cmd) // what runs is ended all the same
	return eachCommand(a, cmd, each{
		do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
			return c.Delete(ctx, name, onEvent)
		},
		sure: func(ctx context.Context, names []string) (bool, error) {
			if *yes || *force {
				return true, nil
			}
			return a.agreed(ctx, "remove VM", "Remove "+plural(len(names), "VM")+"?", names)
		},
	})
}

// forceFlag is -f, which fingers used to Docker write for --yes.
func forceFlag(cmd *cobra.Command) *bool {
	force := cmd.Flags().BoolP("force", "f", false, "")
	_ = cmd.Flags().MarkHidden("force")
	return force
}

// agreed tells what is to be done to which, and asks. Where the answer is no, the error is the exit status.
func (a *app) agreed(ctx context.Context, what, question string, to []string) (bool, error) {
	for _, t := range to {
		fmt.Fprintln(a.err, what, t)
	}
	ok, err := a.confirm(ctx, question)
	if err == nil && !ok {
		fmt.Fprintln(a.err, "banger: nothing was removed")
		err = exit(1)
	}
	return ok, err
}
