package crashtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"banger/internal/api"
	"banger/internal/vm"
)

func pause(r *run) answer  { return r.call("POST", "/v1/vms/web/pause", struct{}{}) }
func resume(r *run) answer { return r.call("POST", "/v1/vms/web/resume", struct{}{}) }

func makePaused(r *run) {
	makeRunning(r)
	must(r, pause(r))
}

func reset(force bool) func(*run) answer {
	return func(r *run) answer { return r.call("POST", "/v1/vms/web/reset", api.ResetRequest{Force: force}) }
}

// wasReset holds that of the old system disk either nothing is left or everything.
func wasReset(r *run, a answer) error {
	v, there := r.record(web)
	b, err := os.ReadFile(v.Runtime.SystemOverlay)
	if errors.Is(err, os.ErrNotExist) {
		b, err = nil, nil
	}
	old := strings.Contains(string(b), "written by the guest")
	if err == nil && (!there || v.Runtime.ResetDue || a.acked && (old || v.Want != vm.WantStopped)) {
		err = fmt.Errorf("it is there: %v, %s; its system disk holds %q, to be reset: %v", there, v.State, b, v.Runtime.ResetDue)
	}
	return err
}

// set changes something of each kind.
func set(r *run) answer {
	return r.call("PATCH", "/v1/vms/web", api.SetRequest{MemoryMiB: 2048, DiskSize: 16 << 30, Labels: map[string]string{"team": "web"}})
}

// wasSet holds that all of it is so, or nothing.
func wasSet(r *run, a answer) error {
	v, there := r.record(web)
	memory, disk, label := v.Spec.MemoryMiB == 2048, v.Spec.DiskSize == 16<<30, v.Spec.Labels["team"] == "web"
	if !there || memory != disk || memory != label || a.acked && !memory {
		return fmt.Errorf("there: %v, %+v", there, v.Spec)
	}
	return nil
}

func rename(r *run) answer {
	return r.call("POST", "/v1/vms/web/rename", api.RenameRequest{Name: newName})
}

// newName is what a VM is called after it was renamed.
const newName = "mail"

// renamed holds that there is one VM, under one of its names, and that its guest goes by it.
func renamed(r *run, a answer) error {
	_, old := r.record(web)
	v, now := r.record(newName)
	if old == now || a.acked && old {
		return fmt.Errorf("under its old name: %v, under the new one: %v", old, now)
	}
	if !now || v.Want != vm.WantRunning {
		return nil
	}
	c, err := r.daemon.Engine.Agent(context.Background(), newName)
	if err != nil {
		return err
	}
	h, err := c.Hello(context.Background())
	if err == nil && (h.Hostname != newName || v.Runtime.DNSName != newName+".vm") {
		err = fmt.Errorf("its guest goes by %s, and others know it as %s", h.Hostname, v.Runtime.DNSName)
	}
	return err
}

// makeRestarted is a VM that runs, and whose policy has it started again whatever ends it.
func makeRestarted(r *run) {
	must(r, create(r, api.CreateRequest{Name: web, Start: true, Restart: vm.RestartAlways}))
	if v, ok := r.record(web); ok {
		r.w.guestWrites(v.ID)
	}
}

// restartedAfter ends the run of a VM, and waits until it is started again.
func restartedAfter(r *run) answer {
	v, _ := r.record(web)
	var a answer
	r.do(func(ctx context.Context) {
		events, err := r.daemon.Engine.Events(ctx, web)
		if err != nil {
			a.err = err
			return
		}
		if id, ok := r.w.k.ProcessOf(v.ID); ok {
			r.w.k.kill(id)
		}
		for range events {
			now, err := r.daemon.Engine.Store.VM(ctx, v.ID)
			if a.acked = err == nil && now.Runtime.Restarts > 0 && now.Runtime.State == vm.StateRunning; a.acked {
				return
			}
		}
	})
	return a
}
