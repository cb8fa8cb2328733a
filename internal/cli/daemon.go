package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/launch"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// exitNoDaemon is `daemon status` where no daemon runs, as init scripts have it.
const exitNoDaemon = 3

// newDaemon groups the commands about the daemon. There is none to start it: every command does.
func newDaemon(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "daemon",
		Short:   "Look at or stop the daemon",
		Long:    "Look at or stop the daemon bangerd. It starts by itself with the first command that needs it.",
		Example: "  banger daemon status\n  banger daemon stop",
		RunE:    help,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && (args[0] == "start" || args[0] == "restart") {
				return vm.Errorf(vm.CodeInvalid, "unknown command %q", cmd.CommandPath()+" "+args[0]).
					WithHint("the daemon starts by itself with the first command that needs it, as 'banger ps'; 'banger daemon stop' ends it")
			}
			return group(cmd, args)
		},
	}
	cmd.AddCommand(newDaemonStatus(a), newDaemonStop(a))
	return cmd
}

func newDaemonStatus(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the running daemon",
		Long:    "Show the running daemon: process, version, files. It does not start one.\n\nExit status: 0 where a daemon answers, 3 where none runs.",
		Example: "  banger daemon status\n  banger daemon status --json",
		Args:    atMost(),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, p, err := a.connectRunning()
		if err != nil {
			return err
		}
		s, err := c.Status(cmd.Context())
		if errors.Is(err, client.ErrNoDaemon) {
			fmt.Fprintf(a.err, "banger: no daemon listens on %s\n", p.Socket())
			return exit(exitNoDaemon)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(a.out, s)
		}
		t := &table{}
		t.row("Process:", strconv.Itoa(s.PID))
		t.row("Version:", s.Version)
		t.row("Running for:", span(time.Duration(s.UptimeMs)*time.Millisecond))
		t.row("VMs:", fmt.Sprintf("%d, %d running", s.VMs, s.Running))
		t.row("Root:", s.Root)
		t.row("Socket:", s.Socket)
		t.row("Database:", s.Database)
		t.row("Log:", s.Log)
		return t.write(a.out)
	}
	return cmd
}

func newDaemonStop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon; VMs keep running",
		Long: `Stop the daemon and wait until it is gone. VMs keep running; the next command starts a daemon that takes them over.

What goes through the daemon ends with it. Commands of 'vm run' and 'vm exec' are cut off: they go on for five minutes, or as
long as it takes with --keep, and 'banger vm attach' joins them again. A VM made with --rm is removed, as when its
session ends.`,
		Example: "  banger daemon stop",
		Args:    atMost(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, p, err := a.connectRunning()
			if err != nil {
				return err
			}
			v, err := c.Version(cmd.Context()) // what tells more needs the database
			var daemon proc.Identity
			if err == nil {
				daemon, _ = proc.Identify(v.PID)
				err = c.Shutdown(cmd.Context())
			}
			c.Close() // a kept connection would hold the daemon up
			if errors.Is(err, client.ErrNoDaemon) {
				fmt.Fprintln(a.err, "banger: no daemon is running")
				return nil
			}
			if err != nil {
				return err
			}
			if daemon.PID == 0 { // it cannot be seen
				return launch.WaitGone(cmd.Context(), p)
			}
			return proc.Wait(cmd.Context(), daemon) // not for none to be left: another may have waited for its lock, and serve by now
		},
	}
}
