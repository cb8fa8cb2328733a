package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/guest"
)

func newTop(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top [flags] NAME",
		Short: "List the processes of a VM",
		Long: `List the processes of a VM's guest, once. The guest needs no ps: banger's agent in it asks the kernel.

CPU is the share of one processor that a process has used since its start, MEMORY what it holds (memory that it shares with others
counts for each), STATE a letter as ps shows it. Threads of the kernel are listed with --all.`,
		Example:           "  banger vm top web\n  banger vm top --all web\n  banger vm top --json web",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeVMs(1),
	}
	asJSON := jsonFlag(cmd)
	all := cmd.Flags().BoolP("all", "a", false, "threads of the kernel too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			p, err := c.Processes(ctx, args[0])
			if err != nil {
				return err
			}
			if p.Total > len(p.Processes) {
				fmt.Fprintf(a.err, "banger: VM %s has %d processes, the first %d are listed\n", args[0], p.Total, len(p.Processes))
			}
			if !*all {
				p.Processes = slices.DeleteFunc(p.Processes, func(p guest.Process) bool { return p.Kernel })
			}
			if *asJSON {
				return printJSON(a.out, p.Processes)
			}
			return processTable(p).write(a.out)
		})
	}
	return cmd
}

func processTable(all guest.Processes) *table {
	t := &table{}
	t.row("PID", "PPID", "USER", "STATE", "CPU", "MEMORY", "TIME", "COMMAND")
	for _, p := range all.Processes {
		t.row(strconv.Itoa(p.PID), strconv.Itoa(p.PPID), orDash(p.User), p.State, percentCell(share(p.CPUMs, max(p.CPUMs, all.UptimeMs-p.StartedMs))),
			formatSize(max(0, p.Resident)), seconds(time.Duration(p.CPUMs)*time.Millisecond), p.Command)
	}
	return t
}
