package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// atOnce bounds the requests of one command line that run at the same time.
const atOnce = 8

// eachCommand is a command that does the same to several VMs: start, stop, kill, delete. The names of those that it was
// done to are printed on stdout; a failure is reported and the others still done.
func eachCommand(a *app, cmd *cobra.Command, do func(context.Context, *client.Client, string, func(vm.Event)) error) *cobra.Command {
	quiet := quietFlag(cmd)
	cmd.Args, cmd.ValidArgsFunction = oneOrMore("NAME"), a.completeVMs(0)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		names = once(names)
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			p.named = len(names) > 1
			errs := make([]error, len(names))
			var group errgroup.Group
			group.SetLimit(atOnce)
			for i, name := range names {
				group.Go(func() error {
					errs[i] = do(ctx, c, name, p.event)
					return nil
				})
			}
			_ = group.Wait()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.finish(false)
			return a.outcome(names, errs)
		})
	}
	return cmd
}

// once drops names that were given before.
func once(names []string) (out []string) {
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// outcome prints the names without an error and reports the errors, in the order of the command line.
func (a *app) outcome(names []string, errs []error) error {
	failed := false
	for i, name := range names {
		if errs[i] != nil {
			a.report(errs[i])
			failed = true
			continue
		}
		if _, err := fmt.Fprintln(a.out, name); err != nil {
			return err
		}
	}
	if failed {
		return exit(exitFailed)
	}
	return nil
}
