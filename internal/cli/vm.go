package cli

import "github.com/spf13/cobra"

// newVM groups the commands about VMs, which are added to it.
func newVM() *cobra.Command {
	return &cobra.Command{
		Use:     "vm",
		Short:   "Make, use and remove VMs",
		Long:    "Make, use and remove virtual machines.\n\nA VM is named by its name, its id, or a unique beginning of its id.",
		Example: "  banger vm run --name web -d\n  banger vm exec web -- uname -r\n  banger vm delete web",
		Args:    group,
		RunE:    help,
	}
}

// vmCommands are those below 'banger vm', in the order in which they are listed.
var vmCommands = []struct {
	name string
	make func(*app) *cobra.Command
}{
	{"run", newRun}, {"create", newCreate}, {"start", newStart}, {"stop", newStop}, {"restart", newRestart}, {"pause", newPause},
	{"resume", newResume}, {"wait", newWait}, {"kill", newKill}, {"delete", newDelete}, {"prune", newPrune}, {"reset", newReset},
	{"commit", newCommit}, {"set", newSet}, {"rename", newRename}, {"list", newList}, {"show", newShow}, {"exec", newExec},
	{"jobs", newJobs}, {"attach", newAttach}, {"signal", newSignal}, {"ssh", newSSH}, {"proxy", newProxy}, {"known-hosts", newKnownHosts},
	{"cp", newCp}, {"logs", newLogs}, {"stats", newStats}, {"top", newTop}, {"ports", newPorts},
}

// vmCommand is the command that args name by its own name, nil where they may mean anything else.
func vmCommand(args []string) func(*app) *cobra.Command {
	if len(args) < 2 || args[0] != "vm" {
		return nil
	}
	for _, c := range vmCommands {
		if c.name == args[1] {
			return c.make
		}
	}
	return nil
}
