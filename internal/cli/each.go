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

// each is a command that does the same to several VMs: start, stop, delete and the like. The names of those that it was done to
// are printed on stdout; a failure is reported and the others still done.
type each struct {
	do func(context.Context, *client.Client, string, func(vm.Event)) error

	// sure is asked before it is done to VMs that nobody has named in full; nil asks nobody.
	sure func(ctx context.Context, names []string) (bool, error)

	idle bool // it only waits: all at the same time

	notes func() []string // lines for people, once it was done to all; nil = none
}

// eachCommand completes cmd. A name may be a pattern.
func eachCommand(a *app, cmd *cobra.Command, e each) *cobra.Command {
	quiet := quietFlag(cmd)
	all := cmd.Flags().BoolP("all", "a", false, "all VMs there are")
	cmd.ValidArgsFunction = a.completeVMs(0)
	cmd.Args = namesOr(all)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if *all {
			given = []string{"*"}
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			names, ids, err := expand(ctx, c, given)
			switch {
			case *all && vm.CodeOf(err) == vm.CodeNotFound:
				return nil // there are none
			case err != nil:
				return err
			case e.sure != nil && slices.ContainsFunc(given, isPattern):
				if ok, err := e.sure(ctx, names); err != nil || !ok {
					return err
				}
				e = e.by(ids)
			}
			return a.each(ctx, c, p, names, e)
		})
	}
	return cmd
}

// namesOr are the arguments of a command that takes names, or all there are.
func namesOr(all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, names []string) error {
		switch {
		case *all && len(names) > 0:
			return usage(cmd, "--all and names contradict each other")
		case *all:
			return nil
		}
		return oneOrMore("NAME")(cmd, names)
	}
}

// by is e done by id where that is known: a name can have changed hands while its user was asked.
func (e each) by(ids map[string]vm.ID) each {
	do := e.do
	e.do = func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
		if id, ok := ids[name]; ok {
			name = string(id)
		}
		return do(ctx, c, name, onEvent)
	}
	return e
}

// each does it, to some at the same time.
func (a *app) each(ctx context.Context, c *client.Client, p *progress, names []string, e each) error {
	p.named = len(names) > 1
	errs := make([]error, len(names))
	var group errgroup.Group
	if !e.idle {
		group.SetLimit(atOnce)
	}
	for i, name := range names {
		group.Go(func() error {
			errs[i] = e.do(ctx, c, name, p.event)
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.finish(false)
	if e.notes != nil {
		for _, n := range e.notes() {
			fmt.Fprintln(a.err, "banger:", n)
		}
	}
	return a.outcome(names, errs)
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
