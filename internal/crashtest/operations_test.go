package crashtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"banger/internal/api"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// An operation is something that is asked of a daemon, or happens to it, from a known beginning.
type operation struct {
	name    string
	covers  []string // operations of the API that it consists of
	library bool     // it is not about a VM
	resets  bool     // the system disk of the VM may be made anew by it
	settles bool     // doing it again is what an ending does anyway, or can only be refused
	bare    bool     // no other VM runs beside it, and nothing is cached

	before  func(*run)        // makes the beginning; the VM it is about is called "web"
	do      func(*run) answer // what is crashed
	reboots bool              // the host has been rebooted in before
	boots   bool              // it is the daemon's own start: nothing is asked, and before's daemon has ended

	// kept says what is wrong after a crash of it, where a is what the client saw, once the next daemon is at rest.
	kept func(r *run, a answer) error
}

const web = "web"

func create(r *run, req api.CreateRequest) answer { return r.call("POST", api.PathVMs, req) }

func must(r *run, a answer) {
	if a.err != nil || !a.acked {
		r.w.t.Errorf("prepare: %v", a.err)
	}
}

func makeRunning(r *run) {
	must(r, create(r, api.CreateRequest{Name: web, Start: true}))
	if v, ok := r.record(web); ok {
		r.w.guestWrites(v.ID)
	}
}

func makeStopped(r *run) {
	makeRunning(r)
	must(r, stop(r))
}

func start(r *run) answer   { return r.call("POST", "/v1/vms/web/start", struct{}{}) }
func stop(r *run) answer    { return r.call("POST", "/v1/vms/web/stop", api.StopRequest{}) }
func kill(r *run) answer    { return r.call("POST", "/v1/vms/web/stop", api.StopRequest{Force: true}) }
func remove(r *run) answer  { return r.call(http.MethodDelete, "/v1/vms/web", struct{}{}) }
func restart(r *run) answer { return r.call("POST", "/v1/vms/web/restart", api.StopRequest{}) }

func build(name string, force bool) func(*run) answer {
	return func(r *run) answer {
		return r.call("POST", api.PathBuild, api.BuildRequest{Recipe: vm.DefaultImage, Name: name, Force: force, Packages: []string{"git"}})
	}
}

func importKernel(r *run) answer {
	return r.call("POST", api.PathImport, api.ImportRequest{Name: "mine", Source: filepath.Join(r.w.source, "vmlinux")})
}

func importImage(file string) func(*run) answer {
	return func(r *run) answer {
		return r.call("POST", api.PathImageImport, api.ImageImportRequest{Name: "second", Source: filepath.Join(r.w.source, file)})
	}
}

func install(r *run) answer {
	return r.call("POST", "/v1/vmms/firecracker/install", api.InstallRequest{From: r.w.source})
}

// session is what `run --rm` does after the VM is there.
func session(r *run) answer {
	a := create(r, api.CreateRequest{Name: web, Start: true, AutoRemove: true})
	if a.err != nil || !a.acked {
		return a
	}
	a = answer{began: true}
	r.do(func(ctx context.Context) {
		_, end, err := r.daemon.Engine.Session(ctx, web)
		if err != nil {
			a.err = err
			return
		}
		end()
		v, err := r.daemon.Engine.Store.VMByRef(ctx, web)
		if err == nil {
			err = r.daemon.Engine.Watch().Gone(ctx, v.ID, nil)
		}
		a.acked, a.err = err == nil || vm.CodeOf(err) == vm.CodeNotFound, nil
	})
	return a
}

// vmmDies is a VMM that somebody kills.
func vmmDies(r *run) answer {
	v, _ := r.record(web)
	if id, ok := r.w.k.ProcessOf(v.ID); ok {
		r.w.k.kill(id)
	}
	var a answer
	r.do(func(ctx context.Context) {
		_, err := r.daemon.Engine.Watch().Stopped(ctx, v.ID, nil)
		for vm.CodeOf(err) == vm.CodeConflict && ctx.Err() == nil { // not noticed yet: it is still to run
			_, err = r.daemon.Engine.Watch().Stopped(ctx, v.ID, nil)
		}
		a.acked = err == nil
	})
	return a
}

// operations are all there are.
func operations() []operation {
	gone := func(r *run, a answer) error {
		if _, there := r.record(web); there && a.acked {
			return fmt.Errorf("the client was told that it is gone, and it is there")
		}
		return nil
	}
	forgotten := func(r *run, _ answer) error {
		if v, there := r.record(web); there {
			return fmt.Errorf("its session died with its daemon, and it is %s", v.State)
		}
		return nil
	}
	stopped := func(r *run, a answer) error {
		v, there := r.record(web)
		if !there || a.acked && v.Want != vm.WantStopped {
			return fmt.Errorf("it should be there, stopped: %v, want %s", there, v.Want)
		}
		return nil
	}
	created := func(running bool) func(r *run, a answer) error {
		return func(r *run, a answer) error {
			v, there := r.record(web)
			if (a.acked || a.began) && !there {
				return fmt.Errorf("the client was told of it, and it is not there")
			}
			if a.acked && running && v.Want != vm.WantRunning && !r.w.rebooted {
				return fmt.Errorf("the client was told that it runs, and it is %s", v.State)
			}
			return nil
		}
	}
	started := func(r *run, a answer) error {
		if _, there := r.record(web); !there {
			return fmt.Errorf("it is not there")
		}
		return created(true)(r, a)
	}
	running := func(r *run, _ answer) error {
		if v, there := r.record(web); !there || v.Want != vm.WantRunning && !r.w.rebooted {
			return fmt.Errorf("it should still run: %v, want %s", there, v.Want)
		}
		return nil
	}
	wanted := func(r *run, _ answer) error { // even after a reboot
		if v, there := r.record(web); !there || v.Want != vm.WantRunning {
			return fmt.Errorf("its policy has it run: %v, want %s (%s)", there, v.Want, v.Runtime.LastError)
		}
		return nil
	}
	imageThere := func(name string) func(r *run, a answer) error {
		return func(r *run, a answer) error {
			if _, err := r.daemon.Images.Get(context.Background(), name); err != nil && a.acked {
				return fmt.Errorf("the client was told of image %s: %w", name, err)
			}
			return nil
		}
	}
	rest := slices.Concat(libraryDeletes(), portOperations(created(true), started, running), guardOperations(running, stopped), leftoverOperations(running))
	return append(rest, []operation{
		{name: "create", covers: []string{"vm-create"}, do: func(r *run) answer { return create(r, api.CreateRequest{Name: web}) }, kept: created(false)},
		{name: "create and start", covers: []string{"vm-create"}, do: func(r *run) answer { return create(r, api.CreateRequest{Name: web, Start: true}) }, kept: created(true)},
		{name: "the first create and start", bare: true, do: func(r *run) answer {
			return create(r, api.CreateRequest{Name: web, Start: true})
		}, before: func(r *run) { forget(r, vm.DefaultImage) }, kept: created(true)},
		{name: "run --rm", covers: []string{"vm-create", "vm-exec"}, do: session, kept: forgotten},
		{name: "start", settles: true, covers: []string{"vm-start"}, before: makeStopped, do: start, kept: started},
		{name: "stop", covers: []string{"vm-stop"}, before: makeRunning, do: stop, kept: stopped},
		{name: "the last one's stop", bare: true, before: makeRunning, do: stop, kept: stopped},
		{name: "kill", covers: []string{"vm-stop"}, before: makeRunning, do: kill, kept: stopped},
		{name: "restart", settles: true, covers: []string{"vm-restart"}, before: makeRunning, do: restart, kept: started},
		{name: "set", covers: []string{"vm-set"}, before: makeRunning, do: set, kept: wasSet},
		{name: "start with a larger work disk", settles: true, covers: []string{"vm-start"}, before: func(r *run) {
			makeStopped(r)
			must(r, set(r))
		}, do: start, kept: started},
		{name: "start, the host was full", settles: true, covers: []string{"vm-start"}, before: makeSpoilt, do: start, kept: started},
		{name: "pause", covers: []string{"vm-pause"}, before: makeRunning, do: pause, kept: running},
		{name: "resume", covers: []string{"vm-resume"}, before: makePaused, do: resume, kept: running},
		{name: "stop, paused", covers: []string{"vm-stop"}, before: makePaused, do: stop, kept: stopped},
		{name: "delete, paused", settles: true, covers: []string{"vm-delete"}, before: makePaused, do: remove, kept: gone},
		{name: "reset", resets: true, covers: []string{"vm-reset"}, before: makeStopped, do: reset(false), kept: wasReset},
		{name: "reset, running", resets: true, covers: []string{"vm-reset"}, before: makeRunning, do: reset(true), kept: wasReset},
		{name: "commit", covers: []string{"vm-commit"}, before: makeStopped, do: func(r *run) answer {
			return r.call("POST", "/v1/vms/web/commit", api.CommitRequest{Image: "second"})
		}, kept: func(r *run, a answer) error {
			if err := stopped(r, answer{acked: true}); err != nil {
				return err
			}
			return imageThere("second")(r, a)
		}},
		{name: "prune", settles: true, covers: []string{"vm-delete"}, before: makeStopped, do: func(r *run) answer {
			return r.call(http.MethodDelete, "/v1/vms/web?if=stopped", struct{}{})
		}, kept: gone},
		{name: "rename", covers: []string{"vm-rename"}, before: makeRunning, do: rename, kept: renamed},
		{name: "delete, running", settles: true, covers: []string{"vm-delete"}, before: makeRunning, do: remove, kept: gone},
		{name: "delete, stopped", settles: true, covers: []string{"vm-delete"}, before: makeStopped, do: remove, kept: gone},
		{name: "the VMM dies", settles: true, before: makeRunning, do: vmmDies, kept: stopped},
		{name: "the VMM dies, and its policy restarts it", settles: true, before: makeRestarted, do: restartedAfter, kept: wanted},
		{name: "image build", library: true, covers: []string{"image-build"}, do: build("second", false), kept: imageThere("second")},
		{name: "image build with a script", library: true, covers: []string{"image-build"}, do: buildScripted, kept: scriptedThere},
		{name: "image build over one in use", library: true, covers: []string{"image-build"}, before: makeStopped, do: build(vm.DefaultImage, true), kept: imageThere(vm.DefaultImage)},
		{name: "image import of a tar", library: true, covers: []string{"image-import"}, do: importImage("root.tar"), kept: imageThere("second")},
		{name: "image import of a disk", library: true, covers: []string{"image-import"}, do: importImage("root.ext4"), kept: imageThere("second")},
		{name: "kernel import", library: true, covers: []string{"kernel-import"}, do: importKernel, kept: func(r *run, a answer) error {
			k, err := r.daemon.Kernels.Get(context.Background(), "mine")
			if err == nil {
				_, err = r.daemon.Kernels.Boot(context.Background(), k.Digest)
			} else if !a.acked {
				err = nil
			}
			return err
		}},
		{name: "vmm install", library: true, covers: []string{"vmm-install"}, do: install, kept: func(r *run, a answer) error {
			if _, _, err := r.daemon.Programs.Locate(); err != nil && a.acked {
				return err
			}
			return nil
		}},
		{name: "vmm install over a damaged one", library: true, covers: []string{"vmm-install"}, before: makeDamaged, do: install, kept: func(r *run, a answer) error {
			if _, _, err := r.daemon.Programs.Locate(); err != nil && a.acked {
				return err
			}
			return nil
		}},
		{name: "vmm delete", library: true, covers: []string{"vmm-delete"}, before: func(r *run) { must(r, install(r)) }, do: func(r *run) answer {
			return r.call(http.MethodDelete, "/v1/vmms/firecracker/versions/1.13.99", struct{}{})
		}, kept: func(r *run, a answer) error {
			if _, _, err := r.daemon.Programs.Locate(); err == nil && a.acked {
				return fmt.Errorf("the client was told that it is gone, and it is there")
			}
			return nil
		}},
		{name: "daemon start, a VM runs", boots: true, before: makeRunning, kept: running},
		{name: "daemon start, a VM is paused", boots: true, before: makePaused, kept: func(r *run, a answer) error {
			v, _ := r.record(web)
			if now := r.daemon.Engine.Seen(v).State; now != vm.StatePaused && !r.w.rebooted {
				return fmt.Errorf("it is paused, and shown as %s", now)
			}
			return running(r, a)
		}},
		{name: "daemon start, its VMM has died", boots: true, before: func(r *run) {
			makeRunning(r)
			v, _ := r.record(web)
			r.end()
			if id, ok := r.w.k.ProcessOf(v.ID); ok {
				r.w.k.kill(id)
			}
		}, kept: func(r *run, a answer) error { return stopped(r, answer{acked: true}) }},
		{name: "daemon start, its VMM's pid is another's", boots: true, before: func(r *run) {
			makeRunning(r)
			v, _ := r.record(web)
			r.end()
			if id, ok := r.w.k.ProcessOf(v.ID); ok {
				r.w.k.kill(id)
				r.w.stranger, _ = r.w.k.Reuse(id.PID)
			}
		}, kept: func(r *run, a answer) error { return stopped(r, answer{acked: true}) }},
		{name: "daemon start, after a reboot", boots: true, reboots: true, before: func(r *run) {
			makeRunning(r)
			r.end()
			r.w.k.reboot()
		}, kept: func(r *run, a answer) error { return stopped(r, answer{acked: true}) }},
		{name: "daemon start, after a reboot, its policy restarts it", boots: true, reboots: true, before: func(r *run) {
			makeRestarted(r)
			r.end()
			r.w.k.reboot()
		}, kept: wanted},
		{name: "daemon start, after a reboot that gave its pid away", boots: true, reboots: true, before: func(r *run) {
			makeRunning(r)
			v, _ := r.record(web)
			r.end()
			id, _ := r.w.k.ProcessOf(v.ID)
			r.w.k.reboot()
			r.w.stranger = r.w.k.same(id)
		}, kept: func(r *run, a answer) error { return stopped(r, answer{acked: true}) }},
	}...)
}

// same starts, after a reboot, unrelated processes until one has the pid and the start time that a VMM had before.
func (k *machine) same(id proc.Identity) (p proc.Identity) {
	for range id.StartTime {
		if p.PID != 0 {
			k.kill(p)
		}
		p, _ = k.Reuse(id.PID)
	}
	return p
}

// forget takes an image away, as if there had never been one.
func forget(r *run, name string) {
	i, err := r.daemon.Images.Get(context.Background(), name)
	if err == nil {
		err = os.RemoveAll(filepath.Dir(r.daemon.Images.RootPath(i.Digest)))
	}
	if err != nil {
		r.w.t.Error(err)
	}
	r.w.forgot = true
}
