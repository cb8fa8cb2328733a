package engine

import (
	"context"
	"time"

	"banger/internal/host/proc"
	"banger/internal/metrics"
	"banger/internal/vm"
)

// counts is what is counted since the daemon's start.
type counts struct {
	starts  *metrics.Counter
	seconds *metrics.Histogram
	ends    *metrics.Counter
}

// startBounds are seconds: Firecracker under KVM at one end, emulation on a busy host at the other.
var startBounds = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180}

func newCounts() counts {
	return counts{
		starts:  metrics.NewCounter("banger_vm_starts_total", "Starts of VMs that are over, by how: ok, failed, or interrupted by another wish.", "vmm", "result"),
		seconds: metrics.NewHistogram("banger_vm_start_duration_seconds", "From the beginning of a start to a guest that is ready, of starts that went well.", startBounds, "vmm"),
		ends:    metrics.NewCounter("banger_vm_unexpected_ends_total", "VMs that were to run and whose machine was found ended, but for guests that powered off.", "vmm"),
	}
}

// started counts a start that is over.
func (c counts) started(ctx context.Context, r vm.VMRecord, err error, took time.Duration) {
	switch {
	case err == nil:
		c.starts.Add(r.VMM, "ok")
		c.seconds.Observe(took.Seconds(), r.VMM)
	case ctx.Err() != nil:
		c.starts.Add(r.VMM, "interrupted")
	default:
		c.starts.Add(r.VMM, "failed")
	}
}

// Metrics writes what is known of VMs: how many there are, what those that live take of the host, and what was counted since
// the daemon's start.
func (e *Engine) Metrics(ctx context.Context, t *metrics.Text) error {
	records, err := e.Store.SharedVMs(ctx)
	if err != nil {
		return err
	}
	states := map[vm.State]int{}
	type alive struct {
		vm.VMRecord
		used proc.Usage
	}
	var live []alive
	for _, r := range records {
		states[e.Seen(r).Runtime.State]++
		if !e.vmAlive(r) {
			continue
		}
		if u, err := e.Processes.Usage(e.Handles.Process(r.ID)); err == nil {
			live = append(live, alive{r, u})
		}
	}
	t.Family("gauge", "banger_vms", "VMs there are, by state.")
	for _, s := range vm.States() {
		t.Sample("banger_vms", float64(states[s]), metrics.Label{Name: "state", Value: string(s)})
	}
	t.Family("gauge", "banger_vm_info", "A VM whose machine lives.")
	for _, r := range live {
		t.Sample("banger_vm_info", 1, metrics.Label{Name: "id", Value: string(r.ID)}, metrics.Label{Name: "name", Value: r.Name},
			metrics.Label{Name: "image", Value: r.Image}, metrics.Label{Name: "vmm", Value: r.VMM})
	}
	each := func(kind, name, help string, value func(proc.Usage) float64) {
		t.Family(kind, name, help)
		for _, r := range live {
			t.Sample(name, value(r.used), metrics.Label{Name: "id", Value: string(r.ID)})
		}
	}
	each("counter", "banger_vm_cpu_seconds_total", "Processor time of the host that a VM's VMM has used, the guest's included.",
		func(u proc.Usage) float64 { return u.CPU.Seconds() })
	each("gauge", "banger_vm_resident_memory_bytes", "Memory of the host that a VM's VMM holds, the guest's included.",
		func(u proc.Usage) float64 { return float64(u.Resident) })
	e.counts.starts.Write(t)
	e.counts.seconds.Write(t)
	e.counts.ends.Write(t)
	return nil
}
