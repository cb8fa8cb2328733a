package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/launch"
	"banger/internal/version"
)

// bare is banger without a command: its help. A -v alone asks for the version, as of other programs.
func (a *app) bare(cmd *cobra.Command, args []string) error {
	if a.verbose {
		_, err := fmt.Fprintf(a.out, "banger %s\n", version.String())
		return err
	}
	return help(cmd, args)
}

// note writes a line of -v.
func (a *app) note(format string, args ...any) {
	if a.verbose {
		fmt.Fprintf(a.err, "banger: %s\n", clean(fmt.Sprintf(format, args...)))
	}
}

// trace tells of each request; nil without -v.
func (a *app) trace() func(client.Exchange) {
	if !a.verbose {
		return nil
	}
	return func(e client.Exchange) {
		switch {
		case !e.Done:
			a.note("> %s %s", e.Method, e.Path)
		case e.Status == 0:
			a.note("< %s %s: no answer, %s", e.Method, e.Path, milliseconds(e.Took))
		default:
			a.note("< %s %s: %d, %s", e.Method, e.Path, e.Status, milliseconds(e.Took))
		}
	}
}

// toldStart is l.Start with a word before and one after it.
func (a *app) toldStart(l launch.Launcher) func(context.Context) error {
	return func(ctx context.Context) error {
		begun := time.Now()
		a.note("no daemon listens, one is started")
		err := l.Start(ctx)
		if err == nil {
			a.note("a daemon listens after %s", milliseconds(time.Since(begun)))
		}
		return err
	}
}

func (a *app) tellSpawned(binary string, pid int) { a.note("started %s, pid %d", binary, pid) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
