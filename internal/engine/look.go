package engine

import (
	"context"
	"os"
	"time"

	"banger/internal/host/proc"
	"banger/internal/plan"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// look gathers the facts of one round. On the first round after the daemon's start it asks the OS; later the process
// is known, and only its identity is checked.
func (w *worker) look(ctx context.Context, r vm.VMRecord) (plan.Facts, error) {
	if w.recovering {
		if err := w.rediscover(ctx, r); err != nil {
			return plan.Facts{}, err
		}
	}
	w.firstLook.Do(func() { close(w.looked) })
	h := w.e.Handles.Get(r.ID)
	process := w.e.Processes.Alive(w.e.Handles.Process(r.ID))
	w.mu.Lock()
	defer w.mu.Unlock()
	if !process {
		w.ready, w.paused = false, false
	}
	return plan.Facts{
		Process:    process,
		Held:       !h.IsZero() || exists(w.e.Paths.VMRun(r.ID)),
		Ready:      w.ready,
		Paused:     w.paused,
		Untold:     w.ready && (w.named != r.Name || w.net.due()),
		Recovering: w.recovering,
		Session:    w.session.present(time.Now()),
		Now:        time.Now(),
	}, nil
}

// rediscover finds what serves the VM after a restart of the daemon, and logs what it decided on.
func (w *worker) rediscover(ctx context.Context, r vm.VMRecord) error {
	driver, err := w.e.vmm(r.VMM)
	if err != nil {
		return err
	}
	h, alive, err := w.e.Handles.Rediscover(ctx, r.ID, r.Runtime.VMDir, w.e.BootID, func(ctx context.Context) (proc.Identity, bool, error) {
		return driver.Find(ctx, refOf(r))
	})
	if err != nil && !alive {
		return err
	}
	if err != nil { // found, but the scratch file could not be written: it is known in memory, and found again next time
		w.e.Log.Warn("found the VMM, cannot note it", "vm", r.Name, "id", r.ID, "error", err)
	}
	if alive {
		w.askPaused(ctx, r)
	}
	w.e.Log.Info("looked for the VMM", "vm", r.Name, "id", r.ID, "want", r.Want, "alive", alive, "pid", h.PID)
	return nil
}

// vmAlive is the one place that decides whether a VM lives: it is wanted running, and a process is proven to be its VMM.
func (e *Engine) vmAlive(r vm.VMRecord) bool {
	return r.Want == vm.WantRunning && e.Processes.Alive(e.Handles.Process(r.ID))
}

// Seen is a record as it is shown: what no process proves is not running, though its worker, which takes down what it
// held, has not recorded its end yet; and what its VMM has halted is paused.
func (e *Engine) Seen(r vm.VMRecord) vm.VMRecord {
	w := e.known(r.ID)
	if r.Runtime.State != vm.StateRunning || w == nil {
		return r
	}
	alive := e.vmAlive(r)
	select {
	case <-w.looked:
		switch {
		case !alive:
			r.Runtime.State = vm.StateStopping
		case w.isPaused():
			r.Runtime.State = vm.StatePaused
		}
		r.State = r.Runtime.State
	default: // nobody has looked yet
	}
	return r
}

// Observe says what is true of a VM right now.
func (e *Engine) Observe(r vm.VMRecord) vm.Observed {
	o := vm.Observed{Alive: e.vmAlive(r), At: time.Now()}
	if w := e.known(r.ID); w != nil && o.Alive {
		w.mu.Lock()
		o.Ready, o.Paused = w.ready && !w.paused, w.paused
		if w.agent != nil {
			o.AgentVersion = w.agent.version
		}
		w.mu.Unlock()
	}
	if o.Alive {
		o.Accel = e.accelOf(r)
	}
	return o
}

// accelOf is what the VM's living process runs by: what the host can do may have changed since its launch.
func (e *Engine) accelOf(r vm.VMRecord) string {
	d, err := e.vmm(r.VMM)
	if err != nil {
		return ""
	}
	if a, ok := d.(vmm.Acceler); ok {
		return a.AccelOf(e.Handles.Process(r.ID))
	}
	return ""
}

// WhyVMM says how a VM's VMM runs here, and why so.
func (e *Engine) WhyVMM(ctx context.Context, r vm.VMRecord) string {
	d, err := e.vmm(r.VMM)
	if err != nil {
		return err.Error()
	}
	why := d.Probe(ctx).Why
	if r.Spec.VMM != vm.Auto {
		return why
	}
	// Why another was not taken, when that is so still: it was not written down.
	if c, err := e.choose(ctx, r.Spec); err == nil && c.vmm.Name() == r.VMM && c.passed != nil {
		why += "; " + c.passed.Error()
	}
	return why
}

// Speed says how fast to expect a VM: by what its living process runs by, else by what its next start would. Empty where none
// would.
func (e *Engine) Speed(ctx context.Context, r vm.VMRecord, seen vm.Observed) string {
	if seen.Accel != "" {
		return vmm.Speed(seen.Accel)
	}
	d, err := e.vmm(r.VMM)
	if err != nil {
		return ""
	}
	if p := d.Probe(ctx); p.Usable {
		return vmm.Speed(p.Accel)
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
