package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newPrune(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove VMs that do not run",
		Long: `Remove VMs that do not run, with everything of them: those that are stopped, and those whose start failed (state error). It first
tells which VMs these are, and asks. What has been started meanwhile is kept.

--filter KEY=VALUE removes only those of which that holds: image, name, state, vmm, label=KEY or label=KEY=VALUE; a value may be
a pattern. Unlike with Docker, -f is --filter; what asks no question is -y.`,
		Example: "  banger vm prune\n  banger vm prune --filter label=team=test --yes\n  banger vm prune --filter 'name=test-*'",
		Args:    atMost(),
	}
	words := cmd.Flags().StringArrayP("filter", "f", nil, "only VMs for which `KEY=VALUE` holds")
	yes := cmd.Flags().BoolP("yes", "y", false, "remove them without a question")
	quiet := quietFlag(cmd)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var bare *pflag.ValueRequiredError
		if errors.As(err, &bare) && bare.GetFlag().Name == "filter" {
			return usage(cmd, "-f lacks its KEY=VALUE: -f is --filter, what asks no question is -y")
		}
		return flagError(cmd, err)
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, w := range *words {
			if strings.HasPrefix(w, "-") {
				return usage(cmd, "-f takes a KEY=VALUE, and took %s for it: -f is --filter, what asks no question is -y", w)
			}
		}
		selected, err := parseFilter(*words, nil)
		if err != nil {
			return err
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			all, err := c.Summaries(ctx)
			if err != nil {
				return err
			}
			var names, plan []string
			ids := map[string]vm.ID{}
			for _, r := range all {
				if prunable(r) && selected.takes(r) {
					names, ids[r.Name] = append(names, r.Name), r.ID
					plan = append(plan, fmt.Sprintf("%s (%s, created %s)", r.Name, r.State, age(time.Now(), r.CreatedAt)))
				}
			}
			if len(names) == 0 {
				p.finish(true)
				fmt.Fprintln(a.err, "banger: nothing to remove: there is no such VM that does not run")
				return nil
			}
			if !*yes {
				if ok, err := a.agreed(ctx, "remove VM", "Remove "+plural(len(names), "VM")+"?", plan); err != nil || !ok {
					return err
				}
			}
			return a.each(ctx, c, p, names, each{do: func(ctx context.Context, c *client.Client, ref string, onEvent func(vm.Event)) error {
				return c.DeleteStopped(ctx, ref, onEvent)
			}}.by(ids))
		})
	}
	return cmd
}

func prunable(r api.VMSummary) bool { return r.State == vm.StateStopped || r.State == vm.StateError }
