package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/guest"
	"banger/internal/vm"
)

// jobsHelp tells what there is of a job, and for how long.
var jobsHelp = fmt.Sprintf(`Jobs are the guest's and go with its boot: nothing of them is stored. Of a job's output the newest %s is kept (less where
all jobs together would take a sixteenth of the guest's memory, or 16M), and of jobs that have ended the newest %d.`, formatSize(guest.KeptOutput), guest.KeptEnded)

func newJobs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs [flags] NAME",
		Short: "List the commands that were run in a VM",
		Long: `List the jobs of a VM, oldest first: commands that 'banger vm exec' and 'banger vm run' have started and that run, those of -d
and --keep that have ended, and those that ended when their client was cut off. SINCE is since when it is in its state, OUTPUT
what it has written, KEPT what of that 'banger vm attach' still gives.

` + jobsHelp,
		Example:           "  banger vm jobs web\n  banger vm jobs -q web\n  banger vm jobs --json web",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeVMs(1),
	}
	asJSON := jsonFlag(cmd)
	quiet := cmd.Flags().BoolP("quiet", "q", false, "print ids only")
	exclusive(cmd, "json", "quiet")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			all, err := c.Jobs(ctx, args[0])
			if err != nil {
				return err
			}
			if all.Total > len(all.Jobs) {
				fmt.Fprintf(a.err, "banger: VM %s has %d jobs, the last %d are listed\n", args[0], all.Total, len(all.Jobs))
			}
			switch {
			case *asJSON:
				return printJSON(a.out, all.Jobs)
			case *quiet:
				for _, j := range all.Jobs {
					if _, err := fmt.Fprintln(a.out, clean(j.ID)); err != nil {
						return err
					}
				}
				return nil
			}
			return jobTable(time.Now(), all.Jobs).write(a.out)
		})
	}
	return cmd
}

func jobTable(now time.Time, all []guest.Job) *table {
	t := &table{}
	t.row("JOB", "STATE", "SINCE", "CLIENTS", "OUTPUT", "KEPT", "COMMAND")
	for _, j := range all {
		since := j.StartedAt
		if j.State != guest.JobRunning {
			since = j.EndedAt
		}
		t.row(j.ID, jobState(j), age(now, since), strconv.Itoa(j.Clients), formatSize(max(0, j.Output)), formatSize(max(0, j.Kept)), j.Command)
	}
	return t
}

// jobState tells in a few words how a job is.
func jobState(j guest.Job) string {
	switch {
	case j.State == guest.JobExited:
		return "exited " + strconv.Itoa(j.Code)
	case j.TimedOut:
		return "killed (timeout)"
	case j.Signal != "":
		return "killed " + j.Signal
	}
	return j.State
}

// findJob returns the job of an id, or a unique beginning of it.
func findJob(ctx context.Context, c *client.Client, name, id string) (found guest.Job, err error) {
	all, err := c.Jobs(ctx, name)
	if err != nil {
		return found, err
	}
	ids := make([]string, len(all.Jobs))
	for i, j := range all.Jobs {
		ids[i] = j.ID
	}
	switch at, n := guest.MatchJob(ids, id); n {
	case 1:
		return all.Jobs[at], nil
	case 0:
		return found, vm.Errorf(vm.CodeNotFound, "VM %s has no job %q", name, id).WithHint("banger vm jobs %s lists them; they go with a restart of the VM", name)
	default:
		return found, vm.Errorf(vm.CodeInvalid, "the ids of %d jobs of VM %s begin with %q", n, name, id).WithHint("banger vm jobs %s lists them", name)
	}
}

// completeJobs completes a VM and then one of its jobs. Like completeVMs it starts no daemon.
func (a *app) completeJobs(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeVMs(1)(cmd, args, word)
	case 1:
		return a.completeJobsOf(cmd, args, word)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// jobsWait bounds what a key pressed in a shell waits for guests.
const jobsWait = 2 * time.Second

// completeJobsOf completes a job of the VM that is named already, else of all that run: a flag may stand before the name.
func (a *app) completeJobsOf(cmd *cobra.Command, names []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, _, err := a.connectRunning()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), jobsWait)
	defer cancel()
	if len(names) == 0 {
		all, _ := c.Summaries(ctx)
		for _, v := range all {
			if v.State == vm.StateRunning {
				names = append(names, v.Name)
			}
		}
	}
	var ids []cobra.Completion
	for _, name := range names {
		all, err := c.Jobs(ctx, name)
		if err != nil {
			continue
		}
		for _, j := range all.Jobs {
			ids = append(ids, cobra.CompletionWithDesc(j.ID, clean(jobState(j)+": "+j.Command)))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
