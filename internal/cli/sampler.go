package cli

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/vm"
)

// load is a VM's load, with what has changed since the sample before.
type load struct {
	api.VMStats
	CPUPercent     *float64 `json:"cpu_percent,omitempty"` // 100 = one of the guest's processors
	HostCPUPercent *float64 `json:"host_cpu_percent,omitempty"`
}

// sampler asks VMs for their load, again and again.
type sampler struct {
	c     *client.Client
	named []api.VMSummary // those that are asked, by their ids once these are known; one that is gone is dropped
	all   bool            // not these, but all that run
	last  map[vm.ID]load
}

// askedAtOnce bounds the VMs that are asked at the same time: one that hangs takes seconds.
const askedAtOnce = 64

// sample asks each VM. The errors are those of names that there is no VM for, any more; one that cannot be asked for another
// reason is among the loads, and says why.
func (s *sampler) sample(ctx context.Context) (loads []load, missing []error, err error) {
	asked, err := s.asked(ctx)
	if err != nil {
		return nil, nil, err
	}
	errs := make([]error, len(asked))
	loads = make([]load, len(asked))
	var group errgroup.Group
	group.SetLimit(askedAtOnce)
	for i, r := range asked {
		group.Go(func() error {
			loads[i].VMStats, errs[i] = s.c.Stats(ctx, ref(r))
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	before := s.last
	s.last = map[vm.ID]load{}
	kept := []load{}
	s.named = nil
	for i, l := range loads {
		switch code := vm.CodeOf(errs[i]); {
		case errs[i] == nil:
			asked[i].ID, asked[i].Name = l.ID, l.Name
		case code == vm.CodeNotFound && s.all: // removed meanwhile
			continue
		case code == vm.CodeNotFound:
			missing = append(missing, errs[i])
			continue
		default:
			l.ID, l.Name, l.State, l.Error = asked[i].ID, asked[i].Name, asked[i].State, errs[i].Error()
		}
		if old, ok := before[l.ID]; ok && errs[i] == nil {
			l.since(old)
		}
		s.last[l.ID] = l
		s.named = append(s.named, asked[i])
		kept = append(kept, l)
	}
	slices.SortStableFunc(kept, func(a, b load) int {
		if !s.all {
			return 0 // as they were named
		}
		return strings.Compare(a.Name, b.Name)
	})
	return kept, missing, nil
}

// asked are the VMs to ask; of those that were named the name is at first all that is known.
func (s *sampler) asked(ctx context.Context) (asked []api.VMSummary, err error) {
	if !s.all {
		return s.named, nil
	}
	every, err := s.c.Summaries(ctx)
	for _, r := range every {
		if r.State == vm.StateRunning || r.State == vm.StatePaused || r.State == vm.StateStarting || r.State == vm.StateStopping {
			asked = append(asked, r)
		}
	}
	return asked, err
}

// ref names a VM to the daemon, by its id where that is known: another may have its name by now.
func ref(r api.VMSummary) string {
	if r.ID != "" {
		return string(r.ID)
	}
	return r.Name
}

// since reckons the percentages. A guest or VMM that is another than before has counted anew: there is nothing to tell.
func (l *load) since(old load) {
	if l.Guest != nil && old.Guest != nil {
		l.CPUPercent = share(l.Guest.CPUUserMs+l.Guest.CPUSystemMs-old.Guest.CPUUserMs-old.Guest.CPUSystemMs, l.Guest.UptimeMs-old.Guest.UptimeMs)
	}
	if l.Host.PID != 0 && l.Host.PID == old.Host.PID {
		l.HostCPUPercent = share(l.Host.CPUMs-old.Host.CPUMs, l.At.Sub(old.At).Milliseconds())
	}
}

func share(part, of int64) *float64 {
	if part < 0 || of <= 0 {
		return nil
	}
	p := 100 * float64(part) / float64(of)
	return &p
}

// running says that there is something to measure.
func running(loads []load) bool {
	return slices.ContainsFunc(loads, func(l load) bool { return l.Host.PID != 0 })
}
