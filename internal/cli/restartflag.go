package cli

import (
	"github.com/spf13/cobra"

	"banger/internal/vm"
)

const restartUsage = "start it again when its run ends unasked (`POLICY`): no, on-failure, on-failure:N or always"

// restartHelp is the paragraph about restart policies in the help of a command that takes one.
const restartHelp = `--restart says what happens when a VM's run ends and nobody asked for that. on-failure starts it again when its machine crashed
or was killed, or its kernel panicked or fell silent; with :N at most N times in a row. always does so too when its guest powered off or
rebooted, and after a reboot of the host. VMs outlive the daemon, whose own restart ends no run. The first restart comes after
100 ms, each further one after twice the time of the one before, at most 5 minutes; after a minute of running well counting
begins anew. 'banger vm show' tells how often it was, and when the next one is. What a user stops stays stopped, and a start
that a user asked for and that failed is not repeated.`

// checkRestart refuses what is no policy.
func checkRestart(cmd *cobra.Command, policy string) error {
	if _, err := vm.ParseRestart(policy); err != nil || cmd.Flags().Changed("restart") && policy == "" {
		return usage(cmd, "--restart %q: it must be no, on-failure, on-failure:N (N from 1 to %d) or always", policy, vm.MaxRestarts)
	}
	return nil
}

func completeRestart(cmd *cobra.Command) {
	policies := []string{vm.RestartNo, vm.RestartOnFailure, vm.RestartAlways}
	_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions(policies, cobra.ShellCompDirectiveNoFileComp))
}
