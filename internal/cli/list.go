package cli

import (
	"context"
	"slices"
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
		Use:     "list [flags] [NAME...]",
		Aliases: []string{"ls", "ps"},
		Short:   "List VMs",
		Long: `List VMs, running or not: all, or those whose names are given or match a pattern.

--filter KEY=VALUE selects by image, name, state, vmm, or label=KEY and label=KEY=VALUE; a value may be a pattern. Of
several values of one key any may hold.

--format writes each VM by a Go template, with the fields ID, Name, State, Image, VMM, VCPU, MemoryMiB, Network, GuestIP, Ports,
Restart, LastError, CreatedAt, Labels and Pending. In it \t is a tab and \n a new line; {{json .}} writes a VM, or a field of it, as JSON on
one line. --format json is --json, and --format 'table TEMPLATE' aligns what tabs part, below the names of the fields.

A VM is "running (guest silent for TIME)" when its machine runs, and its guest has not answered for ten seconds or more: it
may have halted, hang, or be very busy. It is asked when somebody looks, so that a second look tells more; 'banger vm show'
waits a second for the answer.

2* is what 'banger vm set' has given a VM that runs, and its machine gets at its next start: 'banger vm show' tells what it has.
Pending (in JSON "pending") names all of that: vcpu, memory, disk-size.`,
		Example: `  banger vm list
  banger vm list -q --filter state=running | xargs banger vm stop
  banger vm list --filter label=team=web
  banger vm list --format '{{.Name}}\t{{.GuestIP}}\t{{.Ports}}' 'web*'
  banger vm list --json`,
		ValidArgsFunction: a.completeVMs(0),
	}
	how := listFlags(cmd, "VM")
	all := cmd.Flags().BoolP("all", "a", false, "")
	words := cmd.Flags().StringArrayP("filter", "f", nil, "only VMs for which `KEY=VALUE` holds")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		_ = all // stopped VMs are always listed; fingers used to Docker write -a
		selected, err := parseFilter(*words, names)
		if err != nil {
			return err
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			if how.json {
				all, err := c.VMs(ctx)
				if err != nil {
					return err
				}
				return printJSON(a.out, slices.DeleteFunc(all, func(r api.VMListed) bool { return !selected.takes(api.SummaryOf(r.VMRecord)) }))
			}
			found, err := c.Summaries(ctx)
			if err != nil {
				return err
			}
			found = slices.DeleteFunc(found, func(r api.VMSummary) bool { return !selected.takes(r) })
			return writeList(a.out, how, found, func(r api.VMSummary) (string, formatted) { return "VM " + r.Name, formattedOf(r) },
				func() *table { return vmTable(time.Now(), found) })
		})
	}
	_ = cmd.Flags().MarkHidden("all")
	return cmd
}

func vmTable(now time.Time, all []api.VMSummary) *table {
	t := &table{}
	t.row("NAME", "STATE", "IMAGE", "VMM", "CPU", "MEMORY", "IP", "CREATED")
	for _, r := range all {
		t.row(r.Name, stateWord(now, r), r.Image, orDash(r.VMM),
			pendingMark(r, api.PendingVCPU, strconv.Itoa(r.VCPU)), pendingMark(r, api.PendingMemory, formatSize(r.MemoryMiB*mib)),
			orDash(r.GuestIP), age(now, r.CreatedAt))
	}
	return t
}

// pendingMark marks what a VM's machine does not have yet.
func pendingMark(r api.VMSummary, word, will string) string {
	if slices.Contains(r.Pending, word) {
		return will + "*"
	}
	return will
}

// stateWord tells of a removal or a clean-up that failed, and is tried again, why it did, of a restart why it is needed, and of a
// machine that runs for how long its guest owes an answer.
func stateWord(now time.Time, r api.VMSummary) string {
	if r.State == vm.StateRunning && !r.Silent.IsZero() {
		return string(r.State) + " (guest silent for " + span(now.Sub(r.Silent)) + ")"
	}
	if r.LastError == "" || r.State != vm.StateRemoving && r.State != vm.StateStopping && r.State != vm.StateStarting {
		return string(r.State)
	}
	const most = 80 // a table is for the eye; vm show has all of it
	why := []rune(strings.Join(strings.Fields(r.LastError), " "))
	if len(why) > most {
		why = append(why[:most-1], '…')
	}
	return string(r.State) + ": " + string(why)
}
