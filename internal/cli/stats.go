package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// statsEvery is the time between two samples: processor time has a grain of 10 ms, a hundredth of it.
const statsEvery = time.Second

func newStats(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats [flags] [NAME...]",
		Short: "Show what VMs use of their own and of the host",
		Long: `Show what VMs use, anew each second until Ctrl-C: all that run, or those that are named or match a pattern, in whatever state.
On a terminal as many as it has room for.

CPU, MEMORY, NET, DISK and PROCS are what the guest says of itself: processor time since the last sample (100% is one processor),
memory that is not available to its programs out of all it has, bytes received and sent, and read and written, since its boot, and
its processes, the kernel's threads included.
HOST CPU, HOST MEM and HOST DISK are what the VMM's process and the VM's disks take of this machine. A guest that does not answer has
dashes, and the reason at the end of its line.

With --json: an array of all VMs, a line of its own for each sample, with cpu_percent and host_cpu_percent once there are two.`,
		Example:           "  banger vm stats\n  banger vm stats --no-stream web db\n  banger vm stats --no-stream --json",
		ValidArgsFunction: a.completeVMs(0),
	}
	asJSON := jsonFlag(cmd)
	once := cmd.Flags().Bool("no-stream", false, "show it once, after a second of measuring, and end")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		return a.with(cmd.Context(), true, func(ctx context.Context, c *client.Client, _ *progress) error {
			names, _, err := expand(ctx, c, given)
			if err != nil {
				return err
			}
			s := &sampler{c: c, all: len(given) == 0, last: map[vm.ID]load{}}
			for _, n := range names {
				s.named = append(s.named, api.VMSummary{Name: n})
			}
			show := a.showLoads(*asJSON, *once)
			if *once {
				return a.statsOnce(ctx, s, show)
			}
			return a.statsStream(ctx, s, show)
		})
	}
	return cmd
}

// statsOnce shows the second of two samples.
func (a *app) statsOnce(ctx context.Context, s *sampler, show func([]load) error) error {
	loads, missing, err := s.sample(ctx)
	if err == nil && running(loads) {
		if err = pause(ctx, statsEvery); err == nil {
			loads, _, err = s.sample(ctx)
		}
	}
	if err != nil {
		return err
	}
	for _, m := range missing {
		a.report(m)
	}
	if len(loads) > 0 || s.all {
		err = show(loads)
	}
	if err == nil && len(missing) > 0 {
		return exit(exitFailed)
	}
	return err
}

// statsStream shows samples until ctx ends, or no VM that was named is left: one that was there and goes is no failure.
func (a *app) statsStream(ctx context.Context, s *sampler, show func([]load) error) error {
	failed := false
	for first := true; ; first = false {
		loads, missing, err := s.sample(ctx)
		if err != nil {
			return err
		}
		if first {
			for _, m := range missing {
				a.report(m)
				failed = true
			}
		}
		if len(loads) == 0 && !s.all {
			break
		}
		if err := show(loads); err != nil {
			return err
		}
		if err := pause(ctx, statsEvery); err != nil {
			return err
		}
	}
	if failed {
		return exit(exitFailed)
	}
	return nil
}

// pause waits, or returns why ctx ended before.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// showLoads is how samples are shown: on a terminal each in the place of the last.
func (a *app) showLoads(asJSON, once bool) func([]load) error {
	live := !asJSON && !once && term.IsTerminal(int(a.out.Fd())) && os.Getenv("TERM") != "dumb"
	first := true
	return func(loads []load) error {
		switch {
		case asJSON && once:
			return printJSON(a.out, loads)
		case asJSON:
			return json.NewEncoder(a.out).Encode(loads)
		case live:
			width, height, err := term.GetSize(int(a.out.Fd()))
			if err != nil {
				width, height = 0, 0
			}
			return redraw(a.out, loads, width, height)
		}
		if !first {
			fmt.Fprintln(a.out)
		}
		first = false
		return loadTable(loads).write(a.out)
	}
}

// redraw writes the table from the top of the screen, and clears what is left of the last one: the screen does not flicker. What
// does not fit is counted: it would push the rest out at the top. A screen of no width or height has room for all.
func redraw(w io.Writer, loads []load, width, height int) error {
	var b strings.Builder
	if err := loadTable(loads).write(&b); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if width > 0 && height > 0 {
		lines = fitting(lines, width, height-1) // the cursor has the last row
	}
	_, err := io.WriteString(w, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

// fitting is those of lines that have room in so many rows, and how many more there are. Lines that are too long take several.
func fitting(lines []string, width, rows int) []string {
	ends := make([]int, len(lines)) // the rows that are taken with each
	end := 0
	for i, l := range lines {
		end += max(1, (len(l)+width-1)/width)
		ends[i] = end
	}
	if end <= rows {
		return lines
	}
	n := 1 // what the columns are
	for n < len(lines) && ends[n] < rows {
		n++
	}
	return append(lines[:n:n], fmt.Sprintf("… %d more", len(lines)-n))
}

func loadTable(loads []load) *table {
	t := &table{}
	t.row("NAME", "CPU", "MEMORY", "NET IN/OUT", "DISK READ/WRITE", "PROCS", "HOST CPU", "HOST MEM", "HOST DISK")
	for _, l := range loads {
		memory, net, disk, procs := "-", "-", "-", "-"
		if g := l.Guest; g != nil {
			memory = formatSize(max(0, g.MemTotal-g.MemAvailable)) + " / " + formatSize(g.MemTotal)
			net = formatSize(g.NetReceived) + " / " + formatSize(g.NetSent)
			disk = formatSize(g.DiskRead) + " / " + formatSize(g.DiskWritten)
			procs = strconv.Itoa(g.Processes)
		}
		resident := "-"
		if l.Host.Resident > 0 {
			resident = formatSize(l.Host.Resident)
		}
		cells := []string{l.Name, percentCell(l.CPUPercent), memory, net, disk, procs, percentCell(l.HostCPUPercent), resident,
			formatSize(l.Host.SystemDisk + l.Host.WorkDisk)}
		if l.Error != "" {
			cells = append(cells, l.Error)
		}
		t.row(cells...)
	}
	return t
}

func percentCell(p *float64) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", *p)
}
