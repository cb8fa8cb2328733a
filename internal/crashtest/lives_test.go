package crashtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"banger/internal/api"
	"banger/internal/vm"
)

// faults are what acts can be told by a host.
var faults = map[string]error{"disk full": unix.ENOSPC, "busy": unix.EBUSY, "I/O error": unix.EIO}

// alive is one random life: a host, its daemons one after the other, and what clients were told.
type alive struct {
	t *rapid.T
	w *world
	r *run

	told  map[string]bool   // by VM: whether the client was told that it is there; absent = not told
	ports map[string]bool   // by VM and port of its guest: whether the client was told that it is published; absent = not told
	wrote int               // times that a guest wrote
	disks map[string]string // by file: what guests have written, as far as nobody has asked for it to be thrown away
	did   []string
}

func (l *alive) log(format string, args ...any) {
	l.did = append(l.did, fmt.Sprintf(format, args...))
}

// TestRandomLives has clients ask for anything in any order, while the host fails, reboots and kills its daemons. Then it
// is quiet, and everything must be what the records say.
func TestRandomLives(t *testing.T) {
	shards := 5 // of 100 lives each
	if everyPoint > 1 {
		shards = 1
	}
	for range shards {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			randomLives(t)
		})
	}
}

func randomLives(t *testing.T) {
	var lives, crashes, reboots, failures, writes atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		l := &alive{t: rt, w: newWorld(t), told: map[string]bool{}, ports: map[string]bool{}, disks: map[string]string{}}
		defer l.w.close()
		defer func() { l.w.k.end() }()
		l.r = l.w.boot("")
		defer func() { l.r.close() }()
		names := rapid.SampledFrom([]string{"one", "two", web}) // no beginnings of ids
		if rapid.IntRange(0, 3).Draw(rt, "has one") > 0 {       // else most steps would be told that there is no such VM
			l.step("run", "one")
		}
		for range rapid.IntRange(2, 12).Draw(rt, "steps") {
			l.fail(&failures)
			dies := -1 // a start passes so many points that it would never be done if each step had an end
			if rapid.IntRange(0, 2).Draw(rt, "dies") == 0 {
				dies = rapid.IntRange(0, 80).Draw(rt, "after")
			}
			l.r.endAfter(dies)
			l.step(rapid.SampledFrom([]string{"create", "run", "start", "stop", "kill", "set", "pause", "resume", "reset", "delete", "VMM dies", "build", "ports"}).Draw(rt, "what"), names.Draw(rt, "VM"))
			l.r.failing(nil)
			l.r.endAfter(-1)
			switch {
			case rapid.IntRange(0, 9).Draw(rt, "reboot") == 0:
				l.r.close()
				l.w.k.reboot()
				reboots.Add(1)
				l.log("reboot")
				l.r = l.w.boot("")
			case l.r.dead():
				crashes.Add(1)
				l.log("crash")
				l.r.close()
				l.r = l.w.boot("")
			}
		}
		l.quiet()
		lives.Add(1)
		writes.Add(int64(l.wrote))
	})
	t.Logf("%d lives, %d crashes, %d reboots, %d faults, %d times a guest wrote", lives.Load(), crashes.Load(), reboots.Load(), failures.Load(), writes.Load())
	if writes.Load() == 0 {
		t.Error("no guest has ever written anything: nothing is known of disks")
	}
	note(t, Result{Operation: "random lives", Cases: int(lives.Load()), Converged: int(lives.Load())})
}

// fail has the host refuse some acts, or take its time over them, during the next step.
func (l *alive) fail(count *atomic.Int64) {
	kind := rapid.SampledFrom([]string{"none", "none", "slow", "disk full", "busy", "I/O error"}).Draw(l.t, "fault")
	if kind == "none" {
		return
	}
	l.log("%s", kind)
	from, many := int32(rapid.IntRange(0, 15).Draw(l.t, "from")), int32(rapid.IntRange(1, 3).Draw(l.t, "many"))
	var n atomic.Int32
	l.r.failing(func(string) error {
		i := n.Add(1)
		if i < from || i >= from+many {
			return nil
		}
		count.Add(1)
		if err := faults[kind]; err != nil {
			return fmt.Errorf("injected: %w", err)
		}
		for range 100 { // others go on meanwhile
			runtime.Gosched()
		}
		return nil
	})
}

// step asks for something, and notes what the client was told.
func (l *alive) step(what, name string) {
	if l.r.daemon == nil {
		return
	}
	r, path, policy := l.r, api.PathVMs+"/"+name, rapid.SampledFrom([]string{"", vm.RestartAlways, "on-failure:2"}).Draw(l.t, "restart")
	var a answer
	switch what {
	case "create":
		l.maybe(name)
		a = create(r, api.CreateRequest{Name: name})
		l.now(name, a, true)
	case "run":
		l.maybe(name)
		a = create(r, api.CreateRequest{Name: name, Start: true, Restart: policy, Ports: l.published(name)})
		l.now(name, a, true)
		l.writes(name, a)
	case "start":
		a = r.call("POST", path+"/start", struct{}{})
		l.writes(name, a)
	case "stop", "kill":
		a = r.call("POST", path+"/stop", api.StopRequest{Force: what == "kill"})
	case "pause", "resume":
		a = r.call("POST", path+"/"+what, struct{}{})
	case "reset":
		a = r.call("POST", path+"/reset", api.ResetRequest{Force: policy != ""})
		l.resets(name, a)
	case "set":
		a = r.call("PATCH", path, api.SetRequest{Restart: policy, VCPU: 2})
	case "delete":
		l.noPorts(name)
		delete(l.told, name) // from now on it may go at any moment
		a = r.call("DELETE", path, struct{}{})
		l.now(name, a, false)
	case "VMM dies":
		for id, c := range l.w.k.Machines() {
			if c.Name == name {
				l.w.k.kill(id)
			}
		}
	case "ports":
		a = l.changePorts(name)
	case "build":
		a = build("second", true)(r)
	}
	l.log("%s %s: acked %v, %v", what, name, a.acked, a.err)
}

// maybe forgets that the client was told that a VM is gone: it asks for one of that name.
func (l *alive) maybe(name string) {
	if !l.told[name] {
		delete(l.told, name)
	}
}

func (l *alive) now(name string, a answer, there bool) {
	if a.acked || there && a.began {
		l.told[name] = there
	}
}

// quiet begins one more daemon, so that nothing waits for a retry, and looks at everything.
func (l *alive) quiet() {
	l.r.close()
	r, err := next(l.w, "")
	l.r = r
	if err != nil {
		l.t.Fatalf("%s\n%v", strings.Join(l.did, "\n"), err)
	}
	records, err := r.records()
	if err != nil {
		l.t.Fatal(err)
	}
	var errs []error
	for name, there := range l.told {
		if is := slices.ContainsFunc(records, func(v vm.VMRecord) bool { return v.Name == name }); is != there {
			errs = append(errs, fmt.Errorf("lost: the client was told that %s is there: %v; it is: %v", name, there, is))
		}
	}
	errs = append(errs, l.portsKept(records), l.w.kept(l.disks, records))
	for _, v := range records { // and everything can be taken away
		r.do(func(ctx context.Context) {
			_, err := r.daemon.Engine.Delete(ctx, string(v.ID))
			if err == nil {
				err = r.daemon.Engine.Watch().Gone(ctx, v.ID, nil)
			}
			errs = append(errs, err)
		})
	}
	errs = append(errs, r.rest())
	if left := l.w.k.snapshot(); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left: %q", left))
	}
	if err := errors.Join(errs...); err != nil {
		l.t.Fatalf("%s\n%v", strings.Join(l.did, "\n"), err)
	}
}
