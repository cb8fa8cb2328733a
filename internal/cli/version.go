package cli

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/version"
)

// versions is what `version --json` prints.
type versions struct {
	Version string       `json:"version"`
	Go      string       `json:"go"`
	Daemon  *api.Version `json:"daemon"` // null where none runs
}

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of banger and of the running daemon",
		Long:    "Print the version of banger and, where one runs, of the daemon. It does not start one.",
		Example: "  banger version\n  banger version --json",
		Args:    atMost(),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versions{Version: version.String(), Go: runtime.Version()}
		c, _, err := a.connectRunning()
		if err != nil {
			return err
		}
		daemon, err := c.Version(cmd.Context())
		if err == nil {
			v.Daemon = &daemon
		} else if !errors.Is(err, client.ErrNoDaemon) {
			a.report(err) // the own version is known all the same
		}
		if *asJSON {
			return printJSON(a.out, v)
		}
		fmt.Fprintf(a.out, "banger %s (%s)\n", v.Version, v.Go)
		if v.Daemon != nil {
			fmt.Fprintf(a.out, "daemon %s (pid %d)\n", clean(v.Daemon.Version), v.Daemon.PID)
		}
		return nil
	}
	return cmd
}
