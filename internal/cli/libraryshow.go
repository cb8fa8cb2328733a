package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func newImageShow(a *app) *cobra.Command {
	return showCommand(a, imageLibrary, &cobra.Command{
		Short: "Show an image: what it is, its names, the VMs that stand on it",
		Long: `Show what an image is and how it was made, all names that it has, and the VMs that stand on it, whether they run or not.

A NAME may be a pattern. With --json: one object for one NAME, an array for several, or for a pattern.`,
		Example: "  banger image show debian-bookworm\n  banger image show dev --json",
	})
}

func newKernelShow(a *app) *cobra.Command {
	return showCommand(a, kernelLibrary, &cobra.Command{
		Short: "Show a kernel: what it is, its names, the VMs that boot from it",
		Long: `Show what a kernel is and where it came from, all names that it has, and the VMs that boot from it, whether they run or not.

A NAME may be a pattern. With --json: one object for one NAME, an array for several, or for a pattern.`,
		Example: "  banger kernel show debian-6.12-cloud\n  banger kernel show installed --json",
	})
}

// showCommand completes cmd, which has its texts.
func showCommand(a *app, l library, cmd *cobra.Command) *cobra.Command {
	cmd.Use, cmd.Args, cmd.SuggestFor = "show [flags] NAME...", oneOrMore("NAME"), []string{"inspect"}
	cmd.ValidArgsFunction = a.completeLibrary(l)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		for _, n := range names {
			if err := checkPattern(n); isPattern(n) && err != nil {
				return err
			}
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			single := len(names) == 1
			if slices.ContainsFunc(names, isPattern) {
				all, err := l.list(ctx, c)
				if err != nil {
					return err
				}
				if names, err = choose(names, all, l.noun, l.noun); err != nil {
					return err
				}
				single = false
			}
			objects := []any{}
			failed := false
			for _, name := range names {
				v, err := l.show(ctx, c, name)
				if ctx.Err() != nil {
					return err
				}
				if err != nil {
					a.report(err)
					failed = true
					continue
				}
				if objects = append(objects, v.object); *asJSON {
					continue
				}
				if len(objects) > 1 {
					fmt.Fprintln(a.out)
				}
				if err := v.lines.write(a.out); err != nil {
					return err
				}
			}
			var err error
			switch {
			case *asJSON && !single:
				err = printJSON(a.out, objects)
			case *asJSON && len(objects) == 1:
				err = printJSON(a.out, objects[0])
			}
			if err == nil && failed {
				err = exit(exitFailed)
			}
			return err
		})
	}
	return cmd
}

func imageLines(now time.Time, v api.ImageView) *table {
	init := v.Init
	if init == "" {
		init = "none: banger's agent is PID 1"
	}
	return linesOf("Name", v.Name, "Names", others(v.Names), "Digest", v.Digest, "Size", formatSize(v.Size), "Made of", v.Source,
		"Init", init, "Environment", strings.Join(v.Env, " "), "Created", when(now, v.CreatedAt), "VMs", orNone(v.VMs), "File", v.Path)
}

func kernelLines(now time.Time, v api.KernelView) *table {
	return linesOf("Name", v.Name, "Names", others(v.Names), "Release", v.Release, "Version", v.Version, "Digest", v.Digest,
		"Size", formatSize(v.Size), "Source", v.Source, "Created", when(now, v.CreatedAt), "VMs", orNone(v.VMs), "Directory", v.Path)
}

// linesOf is a table of keys and values in turn; what is empty is left out.
func linesOf(pairs ...string) *table {
	t := &table{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			t.row(pairs[i]+":", pairs[i+1])
		}
	}
	return t
}

// others are all names of what has several.
func others(names []string) string {
	if len(names) < 2 {
		return ""
	}
	return strings.Join(names, ", ")
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func when(now, t time.Time) string { return t.Local().Format(time.DateTime) + ", " + age(now, t) }
