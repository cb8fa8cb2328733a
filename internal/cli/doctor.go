package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and what banger left on it",
		Long: `Check whether this host can run VMs and how well, and look for anything that banger left behind.

Exit status: 0 when there is no error (warnings do not count), 1 when there is one, 125 when the check itself failed.

--leaks lists everything on this host that carries banger's mark, each with the VM that it belongs to, or as an ORPHAN: it is this
BANGER_ROOT's, and no VM needs it. Exit status: 0 when there is no orphan, 1 when there is one.

--fix removes the orphans: it prints what it will do, and asks. Where nobody can be asked it wants --yes. What cannot be proven to
be this BANGER_ROOT's is never touched, nor is a VM that has a record: 'banger vm delete' removes those. A VM whose disks are there
and whose record is not is kept: the database may be one from a backup that is older than the VM. --discard ID removes it all the
same, with its disks. Exit status: 0 when no orphan is left, 1 when one is kept, 125 when one could not be removed.`,
		Example: `  banger doctor
  banger doctor --json
  banger doctor --leaks
  banger doctor --leaks --fix
  banger doctor --leaks --fix --discard 0123456789ab
  banger doctor --leaks --fix --yes --json`,
		Args: atMost(),
	}
	asJSON := jsonFlag(cmd)
	var f leakFlags
	cmd.Flags().BoolVar(&f.leaks, "leaks", false, "list what banger has on this host, and whose it is")
	cmd.Flags().BoolVar(&f.fix, "fix", false, "remove what belongs to no VM")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask before removing")
	cmd.Flags().StringSliceVar(&f.discard, "discard", nil, "with --fix: remove this VM too, which has disks and no record (its id; can be given more than once)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if f.json = *asJSON; f.leaks || f.fix {
				return a.leaks(ctx, c, f)
			}
			problems, err := c.Doctor(ctx)
			if err != nil {
				return err
			}
			if *asJSON {
				err = printJSON(a.out, problems)
			} else {
				_, err = fmt.Fprint(a.out, problemsText(problems))
			}
			if err != nil {
				return err
			}
			for _, p := range problems {
				if p.Severity == "error" {
					return exit(1)
				}
			}
			return nil
		})
	}
	return cmd
}

func problemsText(problems []api.Problem) string {
	if len(problems) == 0 {
		return "no problem found\n"
	}
	var b strings.Builder
	for _, severity := range []string{"error", "warning", "info"} {
		for _, p := range problems {
			if p.Severity != severity {
				continue
			}
			fmt.Fprintf(&b, "%s: %s [%s]\n", p.Severity, clean(p.Text), p.Code)
			if p.Hint != "" {
				fmt.Fprintf(&b, "  hint: %s\n", cleanLines(p.Hint))
			}
		}
	}
	return b.String()
}
