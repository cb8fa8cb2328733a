package cli

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newWait(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait [flags] NAME... | --all",
		Short: "Wait until VMs have stopped, or are ready, or gone",
		Long: `Wait until VMs have stopped, or with --for until they are ready or gone, whoever brings that about. Nothing is changed. Names
are printed once all are waited for. A VM that its restart policy starts again has not stopped in between, and a paused one is
ready when it was resumed.

Exit status: 0; 125 when the time of --timeout was over before, or a VM went that was to be ready.`,
		Example: "  banger vm wait web\n  banger vm wait --for ready --timeout 30s web db",
	}
	words := api.Untils()
	until := cmd.Flags().String("for", api.UntilStopped, "what to wait for (`STATE`): "+strings.Join(words, ", "))
	var limit timeFlag
	cmd.Flags().Var(&limit, "timeout", "wait no longer than this `TIME`, as 30s or 5m; a bare number is seconds, 0 is for ever")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(words, *until) {
			return usage(cmd, "--for %s: it must be one of %s", *until, strings.Join(words, ", "))
		}
		if limit.Duration < 0 {
			return usage(cmd, "--timeout %v: it must not be negative", limit.Duration)
		}
		return nil
	}
	return eachCommand(a, cmd, each{idle: true, do: func(ctx context.Context, c *client.Client, name string, _ func(vm.Event)) error {
		bounded := ctx
		if limit.Duration > 0 {
			var cancel context.CancelFunc
			bounded, cancel = context.WithTimeout(ctx, limit.Duration)
			defer cancel()
		}
		_, err := c.Wait(bounded, name, *until)
		if err != nil && ctx.Err() == nil && errors.Is(bounded.Err(), context.DeadlineExceeded) {
			return vm.Errorf(vm.CodeUnavailable, "VM %s is not %s after %v", name, *until, limit.Duration)
		}
		return err
	}})
}
