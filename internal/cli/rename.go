package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newRename(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename [flags] NAME NEW",
		Short: "Give a VM another name",
		Long: `Give a VM another name, whether it runs or not. A guest that runs gets it as its host name at once, a stopped one at its
next start. On the bridge NEW.vm is answered to guests from then on, and the old name no more. Programs in the guest that have
asked for its host name before go on using what they were told.`,
		Args:    exactly("NAME", "NEW"),
		Example: "  banger vm rename web web-old\n  banger vm rename 3f9a web",

		ValidArgsFunction: a.completeVMs(1),
	}
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := vm.ValidateName(args[1]); err != nil {
			return err
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			p.waiting("renaming " + args[0])
			r, pending, err := c.Rename(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			p.finish(true)
			if len(pending) > 0 {
				when := "at its next start"
				if r.Want == vm.WantRunning {
					when = "when it answers"
				}
				fmt.Fprintf(a.err, "banger: the guest of %s gets its new host name %s\n", r.Name, when)
			}
			_, err = fmt.Fprintln(a.out, r.Name)
			return err
		})
	}
	return cmd
}
