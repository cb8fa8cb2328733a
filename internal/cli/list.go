package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls", "ps"},
		Short:   "List VMs",
		Long:    "List all VMs, running or not.",
		Example: "  banger vm list\n  banger vm list -q | xargs banger vm stop\n  banger vm list --json",
		Args:    atMost(),
	}
	asJSON := jsonFlag(cmd)
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print names only")
	all := cmd.Flags().BoolP("all", "a", false, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_ = all // stopped VMs are always listed; fingers used to Docker write -a
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if *asJSON {
				records, err := c.VMs(ctx)
				if err != nil {
					return err
				}
				return printJSON(a.out, records)
			}
			all, err := c.Summaries(ctx)
			switch {
			case err != nil:
				return err
			case *quiet:
				for _, r := range all {
					if _, err := fmt.Fprintln(a.out, r.Name); err != nil {
						return err
					}
				}
				return nil
			}
			return vmTable(time.Now(), all).write(a.out)
		})
	}
	_ = cmd.Flags().MarkHidden("all")
	return cmd
}

func vmTable(now time.Time, all []api.VMSummary) *table {
	t := &table{}
	t.row("NAME", "STATE", "IMAGE", "VMM", "CPU", "MEMORY", "IP", "CREATED")
	for _, r := range all {
		t.row(r.Name, stateWord(r), r.Image, orDash(r.VMM), strconv.Itoa(r.VCPU), formatSize(r.MemoryMiB*mib),
			orDash(r.GuestIP), age(now, r.CreatedAt))
	}
	return t
}

// stateWord tells of a removal or a clean-up that failed, and is tried again, why it did.
func stateWord(r api.VMSummary) string {
	if r.LastError == "" || r.State != vm.StateRemoving && r.State != vm.StateStopping {
		return string(r.State)
	}
	const most = 80 // a table is for the eye; vm show has all of it
	why := []rune(strings.Join(strings.Fields(r.LastError), " "))
	if len(why) > most {
		why = append(why[:most-1], '…')
	}
	return string(r.State) + ": " + string(why)
}
