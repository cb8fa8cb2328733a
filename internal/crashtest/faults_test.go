package crashtest

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/handles"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// TestCleanUpDoesEveryStep: what cannot be removed now keeps nothing else there, and the row and the handles tell of it.
func TestCleanUpDoesEveryStep(t *testing.T) {
	for _, object := range []string{"tap.remove", "dm.remove", "loop.remove", "cgroup.remove", "run-directory.remove"} {
		t.Run(object, func(t *testing.T) {
			w := newWorld(t)
			r := w.boot("")
			makeRunning(r)
			v, _ := r.record(web)
			r.failing(func(label string) error {
				if strings.HasSuffix(label, ":"+object+":before") {
					return unix.EBUSY
				}
				return nil
			})
			if a := remove(r); a.err == nil || !strings.Contains(a.err.Error(), "busy") {
				t.Errorf("the client was told %v", a.err)
			}
			now, there := r.record(web)
			if !there || now.Want != vm.WantGone || !strings.Contains(now.Runtime.LastError, "busy") || handles.Read(v.ID, v.Runtime.VMDir).IsZero() {
				t.Errorf("row %v: %+v, handles %+v", there, now, handles.Read(v.ID, v.Runtime.VMDir))
			}
			left := w.k.snapshot()
			for what, line := range map[string]string{"tap.remove": "tap ", "dm.remove": "device ", "cgroup.remove": "cgroup "} {
				is := slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, line) })
				if is != (what == object) {
					t.Errorf("%s cannot be: left are %q", object, left)
				}
			}
			r.close() // the next daemon goes on
			r, err := next(w, "")
			defer r.close()
			if _, there := r.record(web); err != nil || there {
				t.Errorf("%v, there %v", err, there)
			}
		})
	}
}

// TestCleanUpLooksForTheVMM: a look may miss a VMM, such as one that is just being executed, so that no pid of it is known.
// Who is about to take away what such a one holds looks again, by its API socket.
func TestCleanUpLooksForTheVMM(t *testing.T) {
	for what, after := range map[string]func(*run) error{
		"daemon start": func(r *run) error { return nil },
		"delete":       func(r *run) error { return remove(r).err },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			r := w.boot("")
			makeRunning(r)
			v, _ := r.record(web)
			r.close()
			var looks atomic.Int32
			rules := w.k.usual()
			rules.Hidden = func(vmm.Config) bool { return looks.Add(1) == 1 }
			w.k.Rule(rules)
			r = w.boot("")
			defer r.close()
			if err := errors.Join(after(r), r.rest()); err != nil {
				t.Error(err)
			}
			if _, lives := w.k.ProcessOf(v.ID); lives || looks.Load() < 2 {
				t.Errorf("it lives: %v, after %d looks", lives, looks.Load())
			}
			if now, there := r.record(web); there == (what == "delete") || there && now.Want != vm.WantStopped {
				t.Errorf("it is there: %v, %s", there, now.State)
			}
		})
	}
}
