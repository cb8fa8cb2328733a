package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

func newShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [flags] NAME...",
		Short: "Show what a VM is, and what is true of it now",
		Long: `Show what a VM is (its specification), what serves it now (process, kernel objects), and what was just seen of it.
What 'banger vm set' has changed and a VM that runs has only from its next start on is shown as "512M, 1G from the next start on"; in JSON,
"pending" names it, and "launched_memory_mib" and the like in "handles" are what the machine has.

A NAME may be a pattern. With --json: one object for one NAME, an array for several, or for a pattern.`,
		Example: "  banger vm show web\n  banger vm show web --json\n  banger vm show 'test-*'",
		Args:    oneOrMore("NAME"),

		SuggestFor:        []string{"inspect"}, // as Docker calls it
		ValidArgsFunction: a.completeVMs(0),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			single := len(names) == 1
			if slices.ContainsFunc(names, isPattern) {
				found, _, err := expand(ctx, c, names)
				if err != nil {
					return err
				}
				names, single = found, false
			}
			views := []api.VMView{}
			failed := false
			for _, name := range names {
				v, err := c.VM(ctx, name)
				if ctx.Err() != nil {
					return err
				}
				if err != nil {
					a.report(err)
					failed = true
					continue
				}
				views = append(views, v)
			}
			if err := a.printViews(views, *asJSON, single); err != nil {
				return err
			}
			if failed {
				return exit(exitFailed)
			}
			return nil
		})
	}
	return cmd
}

func (a *app) printViews(views []api.VMView, asJSON, single bool) error {
	if asJSON && single {
		if len(views) == 0 {
			return nil
		}
		return printJSON(a.out, views[0])
	}
	if asJSON {
		return printJSON(a.out, views)
	}
	for i, v := range views {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := viewTable(time.Now(), v).write(a.out); err != nil {
			return err
		}
	}
	return nil
}

// viewTable shows a VM to people, as "key:  value" lines. What is empty is left out.
func viewTable(now time.Time, v api.VMView) *table {
	t := &table{}
	line := func(key, value string) {
		if value != "" {
			t.row(key+":", value)
		}
	}
	line("Name", v.Name)
	line("ID", string(v.ID))
	line("State", stateLine(now, v))
	errorLines(line, now, v.Runtime)
	restartLines(line, now, v.VMRecord)
	line("Image", v.Image+after("  ", shortDigest(v.ImageDigest)))
	line("Kernel", v.Kernel+after("  ", shortDigest(v.KernelDigest)))
	line("CPUs", pendingLine(v, api.PendingVCPU, strconv.Itoa(v.Handles.LaunchedVCPU), strconv.Itoa(v.Spec.VCPU), ""))
	line("Memory", pendingLine(v, api.PendingMemory, formatSize(v.Handles.LaunchedMemoryMiB*mib), formatSize(v.Spec.MemoryMiB*mib), ""))
	line("Work disk", pendingLine(v, api.PendingDiskSize, formatSize(v.Handles.LaunchedDiskSize), formatSize(v.Spec.DiskSize), " at /root"))
	line("VMM", chosen(v.VMM, v.Spec.VMM)+after(", ", v.Observed.Accel))
	line("Why this VMM", v.VMMWhy)
	line("How fast", v.Speed)
	line("Disk driver", chosen(v.Disk, v.Spec.Disk))
	line("Network", chosen(v.Network, v.Spec.Network))
	line("IP", v.Runtime.GuestIP)
	line("Host name", v.Runtime.DNSName)
	for _, p := range v.Ports {
		line("Port", portLine(now, p))
	}
	line("Labels", labelLine(v.Spec.Labels))
	line("Created", v.CreatedAt.Local().Format(time.DateTime)+", "+age(now, v.CreatedAt))
	line("Directory", v.VMDir)
	line("Console log", v.Runtime.LogPath)
	handleLines(line, v.Handles)
	return t
}

// pendingLine tells what a VM has of something, and what it will have when that is another.
func pendingLine(v api.VMView, word, has, will, where string) string {
	if !slices.Contains(v.Pending, word) {
		return will + where
	}
	return has + where + ", " + will + " from the next start on"
}

func labelLine(labels map[string]string) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, key+after("=", labels[key]))
	}
	return strings.Join(words, ", ")
}

func stateLine(now time.Time, v api.VMView) string {
	s := string(v.State)
	if v.State == vm.StateRunning {
		if !v.StartedAt.IsZero() {
			s += " for " + span(now.Sub(v.StartedAt))
		}
		switch since := v.Observed.Silent; {
		case !v.Observed.Ready:
			s += ", the guest's agent does not answer"
		case !since.IsZero():
			s += ", but its guest has not answered for " + span(now.Sub(since))
		}
	}
	return s
}

// errorLines tell what went wrong last, since when, and when what failed is tried again.
func errorLines(line func(key, value string), now time.Time, r vm.VMRuntime) {
	line("Last error", r.LastError)
	if r.LastError == "" || r.LastErrorAt.IsZero() {
		return
	}
	since := r.LastErrorAt.Local().Format(time.DateTime) + ", " + age(now, r.LastErrorAt)
	if r.Attempts > 0 {
		since += ", " + strconv.Itoa(r.Attempts) + " failed so far"
	}
	line("Since", since)
	switch {
	case r.Attempts == 0:
	case r.RetryAt.After(now):
		line("Next try", "in "+span(r.RetryAt.Sub(now).Round(time.Second)))
	default:
		line("Next try", "now")
	}
}

// restartLines tell a restart policy, and what came of it so far.
func restartLines(line func(key, value string), now time.Time, r vm.VMRecord) {
	if r.Spec.Restart == "" || r.Spec.Restart == vm.RestartNo {
		return
	}
	text := r.Spec.Restart
	if n := r.Runtime.Restarts; n > 0 {
		text += ", restart " + strconv.Itoa(n) + " in a row"
	}
	line("Restart policy", text)
	switch at := r.Runtime.RestartAt; {
	case at.IsZero() || r.State != vm.StateStarting:
	case at.After(now):
		line("Next start", "in "+span(at.Sub(now).Round(time.Second)))
	default:
		line("Next start", "now")
	}
}

// chosen tells what serves a VM and whether it was asked for.
func chosen(what, asked string) string {
	if what == "" {
		return asked
	}
	if asked == "auto" {
		return what + " (chosen by banger)"
	}
	return what
}

func handleLines(line func(key, value string), h vm.VMHandles) {
	if h.PID != 0 {
		line("Process", strconv.Itoa(h.PID))
	}
	line("Cgroup", h.Cgroup)
	line("Tap device", h.TapDevice)
	line("Base loop", h.BaseLoop)
	line("COW loop", h.CowLoop)
	line("DM name", h.DMName)
	line("DM device", h.DMDev)
}
