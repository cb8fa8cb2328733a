package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/disk"
	"banger/internal/guest"
	"banger/internal/image"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// scripted has guests run scripts: they answer with what was sent, and this exit status.
func (w *world) scripted(code int, before func(e fake.Exec)) *string {
	var got string
	w.host.Rule(fake.Rules{Exec: func(_ context.Context, e fake.Exec) guest.ExecExit {
		b, _ := io.ReadAll(e.Stdin)
		got = strings.Join(e.Request.Argv, " ") + "\n" + string(b)
		fmt.Fprint(e.Stdout, "one\ntwo")
		fmt.Fprint(e.Stderr, "\nthree\n")
		if before != nil {
			before(e)
		}
		return guest.ExecExit{Code: code}
	}})
	return &got
}

func (w *world) nothingOfIt(d *daemon) {
	w.t.Helper()
	all, err := d.Store.VMs(w.t.Context())
	for _, r := range all { // who was cut off did not wait for it
		must(w.t, d.Watch().Gone(w.t.Context(), r.ID, nil))
	}
	if err == nil {
		all, err = d.Store.VMs(w.t.Context())
	}
	dirs, _ := os.ReadDir(w.paths.VMs())
	if err != nil || len(all) > 0 || len(dirs) > 0 || w.held.Load() != 0 {
		w.t.Errorf("left %v, %v, %d held, %v", all, dirs, w.held.Load(), err)
	}
}

func TestBuildScripted(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	sent := w.scripted(0, func(e fake.Exec) {
		r, err := d.Store.VM(t.Context(), e.VM.ID)
		if err != nil || r.Image != "mine" || r.Spec.Labels["build"] != "mine" || !r.Spec.AutoRemove {
			t.Errorf("the VM is %+v, %v", r, err)
		}
		written(t, r)
	})
	var mu sync.Mutex
	var said []string
	img, err := d.BuildScripted(t.Context(), image.BuildOptions{Name: "mine"}, "#!/bin/sh\nmake install\n", func(e vm.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Stage == "script" && e.Kind == "note" {
			said = append(said, e.Text)
		}
	})
	if err != nil || img.Name != "mine" || img.Source != "script" {
		t.Errorf("%+v, %v", img, err)
	}
	if b, err := os.ReadFile(filepath.Join(w.paths.State, "adopted")); err != nil || string(b) != "written by the guest" {
		t.Errorf("the image holds %q, %v", b, err)
	}
	if !strings.HasPrefix(*sent, "/bin/sh -c umask 077; cat >/root/") || !strings.HasSuffix(*sent, "\n#!/bin/sh\nmake install\n") {
		t.Errorf("the guest got %q", *sent)
	}
	if strings.Join(said, ",") != "one,two,three" {
		t.Errorf("told %q", said)
	}
	w.nothingOfIt(d)
	if img, err := d.BuildScripted(t.Context(), image.BuildOptions{Name: "there"}, "x", nil); err != nil || img.Name != "there" {
		t.Errorf("one that is there: %+v, %v", img, err)
	}
}

func TestBuildScriptedThatFails(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	build := func(ctx context.Context, code vm.Code, words string) {
		t.Helper()
		_ = os.Remove(filepath.Join(w.paths.State, "adopted"))
		_, err := d.BuildScripted(ctx, image.BuildOptions{Name: "mine"}, "#!/bin/sh\n", nil)
		if vm.CodeOf(err) != code || !strings.Contains(err.Error()+"; "+vm.HintOf(err), words) {
			t.Errorf("%v (code %s, hint %q), want code %s with %q", err, vm.CodeOf(err), vm.HintOf(err), code, words)
		}
		if _, err := os.Stat(filepath.Join(w.paths.State, "adopted")); err == nil {
			t.Error("an image was made")
		}
		w.nothingOfIt(d)
	}
	w.scripted(3, nil)
	build(t.Context(), vm.CodeInvalid, "build image mine: the script ended with exit status 3: one\ntwo\nthree; nothing was made")
	w.scripted(127, nil)
	build(t.Context(), vm.CodeInvalid, "exit status 127: one\ntwo\nthree; nothing was made; a command is not in the image, or the script's own /bin/sh: --packages")
	ctx, leave := context.WithCancel(t.Context())
	w.scripted(0, func(fake.Exec) { leave() })
	build(ctx, vm.CodeCanceled, "build image mine")
	w.scripted(0, func(fake.Exec) { w.host.Rule(fake.Rules{Hello: func(vmm.Config) error { return errors.New("panic") }}) })
	build(t.Context(), vm.CodeUnavailable, "build image mine: the guest did not settle its disks")
	w.host.Rule(fake.Rules{Launch: func(vmm.Config) error { return errors.New("no machine today") }})
	build(t.Context(), vm.CodeUnavailable, "no machine today")
	if _, err := d.BuildScripted(t.Context(), image.BuildOptions{Name: "mine"}, strings.Repeat("x", MaxScript+1), nil); vm.CodeOf(err) != vm.CodeInvalid {
		t.Errorf("a large one: %v", err)
	}
}

// full has a VMM halt its machine, since the host's disk is full.
func (w *world) full(c vmm.Config) {
	if err := w.host.OutOfSpace(c.ID); err != nil {
		w.t.Error(err)
	}
}

// A VM that waits for room on the host waits for ever where nobody makes some: its build does not.
func TestBuildScriptedWithoutRoom(t *testing.T) {
	const want = "build image mine: no space is left"
	begin := func(t *testing.T, store *guarded) (*world, *daemon) {
		t.Helper()
		w := newWorld(t)
		w.store = store
		d := w.begin()
		d.GuardEvery = 10 * time.Millisecond
		must(t, d.Recover(t.Context()))
		return w, d
	}
	fails := func(t *testing.T, w *world, d *daemon) {
		t.Helper()
		_, err := d.BuildScripted(t.Context(), image.BuildOptions{Name: "mine"}, "#!/bin/sh\n", nil)
		if vm.CodeOf(err) != vm.CodeNoSpace || !strings.HasPrefix(fmt.Sprint(err), want) || !strings.Contains(vm.HintOf(err), "nothing was made") {
			t.Errorf("%v (code %s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
		}
		if _, err := os.Stat(filepath.Join(w.paths.State, "adopted")); err == nil {
			t.Error("an image was made")
		}
		w.nothingOfIt(d)
		w.nothingLeft()
	}
	waits := func(ctx context.Context, _ fake.Exec) guest.ExecExit {
		<-ctx.Done()
		return guest.ExecExit{}
	}
	t.Run("for the script", func(t *testing.T) {
		w, d := begin(t, nil)
		w.host.Rule(fake.Rules{Exec: func(ctx context.Context, e fake.Exec) guest.ExecExit {
			w.full(e.VM)
			return waits(ctx, e)
		}})
		fails(t, w, d)
	})
	t.Run("for what it left to be written", func(t *testing.T) {
		w, d := begin(t, nil)
		release := make(chan struct{})
		t.Cleanup(func() { close(release) })
		w.host.Rule(fake.Rules{Sync: func(c vmm.Config) {
			w.full(c)
			<-release
		}})
		fails(t, w, d)
	})
	t.Run("on a guarded disk", func(t *testing.T) {
		w, d := begin(t, &guarded{health: disk.Health{State: disk.StoreOK, HostFree: 100 << 30}})
		w.host.Rule(fake.Rules{Exec: func(ctx context.Context, e fake.Exec) guest.ExecExit {
			w.store.set(disk.StoreOK, guardReserve-1)
			return waits(ctx, e)
		}, Kill: w.store.held})
		fails(t, w, d)
	})
	t.Run("and is paused by hand", func(t *testing.T) { // that waits for who did it
		w, d := begin(t, nil)
		ran := make(chan struct{})
		w.host.Rule(fake.Rules{Exec: func(ctx context.Context, e fake.Exec) guest.ExecExit {
			_, paused := d.Pause(ctx, string(e.VM.ID))
			for before := w.asked.Load(); w.asked.Load() < before+3; {
				<-time.After(time.Millisecond)
			}
			_, err := d.Resume(ctx, string(e.VM.ID))
			if err := errors.Join(paused, err); err != nil {
				t.Error(err)
			}
			close(ran)
			return guest.ExecExit{}
		}})
		_, err := d.BuildScripted(t.Context(), image.BuildOptions{Name: "mine"}, "#!/bin/sh\n", nil)
		must(t, err)
		<-ran
		w.nothingOfIt(d)
	})
}

func TestInterpreter(t *testing.T) {
	for script, want := range map[string]string{"#!/bin/sh\necho": "/bin/sh", "#! /usr/bin/env python3 -u\n": "/usr/bin/env", "#!/bin/sh": "/bin/sh", "#!\n": "", "echo #!/bin/sh\n": "", "": ""} {
		if got := interpreter(script); got != want {
			t.Errorf("%q is one of %q, want %q", script, got, want)
		}
	}
}
