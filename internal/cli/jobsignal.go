package cli

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger/internal/api/client"
	"banger/internal/guest"
)

func newSignal(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "signal NAME JOB [SIGNAL]",
		Short: "Send a command that runs in a VM a signal",
		Long: `Send a job of a VM a signal: to the command and what it has started in its process group; where it has a terminal, to what runs in
its foreground. SIGNAL is a name or a number, as TERM, SIGKILL, RTMIN+1 or 2; without one it is TERM.`,
		Example:           "  banger vm signal web 3f2a\n  banger vm signal web 3f2a KILL",
		ValidArgsFunction: a.completeJobsAndSignals,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exactly("NAME", "JOB")(cmd, args)
			}
			return atMost("NAME", "JOB", "SIGNAL")(cmd, args)
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		signal := "TERM"
		if len(args) == 3 {
			signal = args[2]
		}
		signal, ok := toGuest(signal)
		if !ok {
			return usage(cmd, "there is no signal %q: it is a name or a number of 'kill -l'", args[2])
		}
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			return c.SignalJob(ctx, args[0], guest.SignalRequest{Job: args[1], Signal: signal})
		})
	}
	return cmd
}

// completeJobsAndSignals completes a VM, one of its jobs, and a signal.
func (a *app) completeJobsAndSignals(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 2 {
		return a.completeJobs(cmd, args, word)
	}
	prefix := ""
	if strings.HasPrefix(strings.ToUpper(word), "S") { // as SIGKILL; no name without it begins so but STOP and SEGV, SYS and STKFLT
		prefix = "SIG"
	}
	var names []cobra.Completion
	for n := syscall.Signal(1); n <= unix.SIGSYS; n++ {
		name := strings.TrimPrefix(unix.SignalName(n), "SIG")
		names = append(names, name)
		if prefix != "" {
			names = append(names, prefix+name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// otherNames are those of signals that have another one as well, and the first and the last of those that are the programs' own, as
// the C library counts them.
var otherNames = map[string]int{"CLD": int(unix.SIGCHLD), "IOT": int(unix.SIGABRT), "POLL": int(unix.SIGIO), "RTMIN": 34, "RTMAX": 64}

// toGuest is a signal by a name or a number that a guest knows; false where there is none of this one.
func toGuest(s string) (string, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return s, n > 0 && n <= otherNames["RTMAX"]
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if unix.SignalNum("SIG"+name) != 0 {
		return s, true
	}
	base, offset := name, 0
	if at := strings.IndexAny(name, "+-"); at > 0 && strings.HasPrefix(name, "RT") {
		n, err := strconv.Atoi(name[at:])
		if err != nil {
			return "", false
		}
		base, offset = name[:at], n
	}
	n, ok := otherNames[base]
	n += offset
	return strconv.Itoa(n), ok && n <= otherNames["RTMAX"] && (offset == 0 || n >= otherNames["RTMIN"])
}
