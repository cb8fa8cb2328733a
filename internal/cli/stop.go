package cli

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newStop(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop [flags] NAME... | --all",
		Short: "Stop running VMs",
		Long: `Stop running VMs: disks are written, processes are asked to end, the machine is powered off. Processes that are still there
after the time of --time are killed; the disks have the time they need after that. A VM that does not answer is ended without
its help, and 'banger vm show' says so. Disks are kept; 'banger vm start' starts it again.`,
		Example: "  banger vm stop web\n  banger vm stop --time 60 web 'test-*'\n  banger vm stop --all",
	}
	grace := graceFlag(cmd)
	var mu sync.Mutex
	var unclean []string
	return eachCommand(a, cmd, each{
		do: func(ctx context.Context, c *client.Client, name string, onEvent func(vm.Event)) error {
			begin := time.Now()
			r, err := c.Stop(ctx, name, api.StopRequest{GraceMs: int(grace.Milliseconds())}, onEvent)
			if err == nil && r.Runtime.LastErrorAt.After(begin) { // else it is of an earlier run
				mu.Lock()
				defer mu.Unlock()
				unclean = append(unclean, fmt.Sprintf("%s has ended, but: %s", r.Name, r.Runtime.LastError))
			}
			return err
		},
		notes: func() []string {
			slices.Sort(unclean)
			return unclean
		},
	})
}

// graceFlag adds --time.
func graceFlag(cmd *cobra.Command) *timeFlag {
	grace := &timeFlag{10 * time.Second}
	cmd.Flags().VarP(grace, "time", "t", "`TIME` its processes have to end, as 30s or 2m; a bare number is seconds")
	const most = math.MaxInt32 / 1000 * time.Second
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case grace.Duration < time.Second:
			return usage(cmd, "--time %v: it must be at least a second; 'banger vm kill' gives them none", grace.Duration)
		case grace.Duration > most:
			return usage(cmd, "--time %v: it must be at most %d seconds", grace.Duration, most/time.Second)
		}
		return nil
	}
	return grace
}
