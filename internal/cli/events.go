package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newEvents(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events [flags] [VM...]",
		Short: "Print what happens to VMs, as it happens",
		Long: `Print what happens to VMs from now on, a line each, until Ctrl-C: of all, or of those that are named or whose names match a
pattern. A pattern holds for VMs that are made later, too. What happened before is not kept: see 'banger vm show' for the last
error, and 'banger vm logs' for the console.

With --json each line is an object: time, vm (the id), name, kind and what belongs to that. Kinds are "state" (with state, and in text
the last error), "stage" (stage, and status: begin, end or failed; with elapsed_ms at its end), "gone", and "note" (with text) without a VM where events are missing because they were not read in time.`,
		Example:           "  banger events\n  banger events web\n  banger events --json 'ci-*'",
		ValidArgsFunction: a.completeVMs(0),
	}
	asJSON := jsonFlag(cmd)
	cmd.Flags().BoolP("follow", "f", true, "") // there is nothing else to do; fingers used to logs write -f
	_ = cmd.Flags().MarkHidden("follow")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			f := &follower{out: a.out, json: *asJSON}
			if err := f.choose(ctx, c, names); err != nil {
				return err
			}
			ctx, stop := context.WithCancelCause(ctx)
			defer stop(nil)
			err := c.Events(ctx, f.only(), func(e vm.Event) {
				if err := f.event(e); err != nil {
					stop(err) // nobody reads any more
				}
			})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		})
	}
	return cmd
}

// follower prints events.
type follower struct {
	out      io.Writer
	json     bool
	all      bool
	ids      map[vm.ID]string // of VMs named in full
	patterns []string         // of names
}

// choose selects VMs. One that is named in full must be there.
func (f *follower) choose(ctx context.Context, c *client.Client, names []string) error {
	f.all, f.ids = len(names) == 0, map[vm.ID]string{}
	for _, n := range names {
		if isPattern(n) {
			if err := checkPattern(n); err != nil {
				return err
			}
			f.patterns = append(f.patterns, n)
			continue
		}
		v, err := c.VM(ctx, n)
		if err != nil {
			return err
		}
		f.ids[v.ID] = v.Name
	}
	return nil
}

// only is the one VM that events are asked of, or empty: the daemon tells of one, or of all.
func (f *follower) only() string {
	if len(f.ids) == 1 && len(f.patterns) == 0 {
		for id := range f.ids {
			return string(id)
		}
	}
	return ""
}

func (f *follower) event(e vm.Event) error {
	_, named := f.ids[e.VM]
	of := e.VM != "" || e.Name != "" // else it is about the events themselves
	if !f.all && of && !named && !matches(f.patterns, e.Name) {
		return nil
	}
	if f.json {
		return json.NewEncoder(f.out).Encode(e)
	}
	who := e.Name
	if who == "" {
		who = string(e.VM)
	}
	_, err := fmt.Fprintf(f.out, "%s  %s  %s\n", e.Time.Local().Format(time.DateTime+".000"), orDash(clean(who)), clean(eventWords(e)))
	return err
}

// eventWords says what happened.
func eventWords(e vm.Event) string {
	switch {
	case e.Kind == "state":
		return string(e.State) + after(": ", e.Text)
	case e.Kind == "stage" && e.Status == "begin":
		return e.Stage + " …" + after(" ", e.Text)
	case e.Kind == "stage" && e.Status == "end":
		return e.Stage + " " + seconds(time.Duration(e.ElapsedMs)*time.Millisecond)
	case e.Kind == "stage":
		return e.Stage + " " + e.Status + after(": ", e.Text)
	}
	return e.Kind + after(": ", e.Text)
}
