package crashtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// An ending is what comes after a crash.
type ending struct {
	name string
	// then begins the next daemon, and what is done with it; it returns one that is at rest.
	then func(w *world, o operation) (*run, error)
	acts bool // it changes what the operation was about
	// suits says whether it is of use after an operation, at the n-th of its points; nil = always.
	suits func(o operation, n int) bool
}

func onVM(o operation, _ int) bool     { return !o.library }
func repeated(o operation, _ int) bool { return o.do != nil && !o.settles }

// next begins a daemon and waits until it is at rest.
func next(w *world, at string) (*run, error) {
	r := w.boot(at)
	if r.daemon == nil {
		return r, nil
	}
	if err := r.rest(); err != nil && !r.dead() {
		return r, fmt.Errorf("after the restart: %w", err)
	}
	return r, nil
}

func then(w *world, do func(*run) error) (*run, error) {
	r, err := next(w, "")
	if err != nil || r.daemon == nil {
		return r, err
	}
	if err := do(r); err != nil {
		return r, err
	}
	return r, r.rest()
}

var endings = []ending{
	{"restart", func(w *world, _ operation) (*run, error) { return next(w, "") }, false, nil},
	{"the same again", func(w *world, o operation) (*run, error) {
		return then(w, func(r *run) error {
			if o.do == nil {
				return nil
			}
			a := o.do(r)
			if a.acked {
				return nil
			}
			switch vm.CodeOf(a.err) {
			case vm.CodeExists, vm.CodeNotFound, vm.CodeConflict, vm.CodeNotRunning:
				return nil
			}
			return fmt.Errorf("the same again: %w", a.err)
		})
	}, true, repeated},
	{"delete after restart", func(w *world, _ operation) (*run, error) {
		return then(w, func(r *run) error {
			if _, there := r.record(web); !there {
				return nil
			}
			if a := remove(r); !a.acked {
				return fmt.Errorf("delete: %w", a.err)
			}
			if _, there := r.record(web); there {
				return errors.New("it is deleted and there")
			}
			return nil
		})
	}, true, onVM},
	{"start after restart", func(w *world, _ operation) (*run, error) {
		return then(w, func(r *run) error {
			v, there := r.record(web)
			if !there {
				return nil
			}
			if a := start(r); !a.acked {
				return fmt.Errorf("start: %w", a.err)
			}
			if v, _ = r.record(web); v.Want != vm.WantRunning {
				return errors.New("it is started and does not run")
			}
			return nil
		})
	}, true, onVM},
	{"host reboot", func(w *world, _ operation) (*run, error) {
		w.k.reboot()
		w.rebooted = true
		return next(w, "")
	}, false, func(_ operation, n int) bool { return n%2 == 0 }},
	{"host reboot that empties /run", func(w *world, _ operation) (*run, error) {
		w.k.reboot()
		w.rebooted = true
		if err := os.RemoveAll(w.paths.Run); err != nil {
			return nil, err
		}
		return next(w, "")
	}, false, func(_ operation, n int) bool { return n%2 == 1 }},
}

const crashAgain = "crash during the recovery"

// beginning makes the world that an operation finds. No daemon runs in it: crash begins one.
func beginning(t testing.TB, o operation) *snapshot {
	w := newWorld(t)
	r := w.boot("")
	if !o.bare {
		must(r, create(r, api.CreateRequest{Name: "other", Start: true}))
		if v, ok := r.record("other"); ok {
			w.guestWrites(v.ID)
		}
	}
	if o.before != nil {
		o.before(r)
	}
	if !r.dead() && !w.forgot {
		if err := r.rest(); err != nil {
			t.Fatalf("before it: %v", err)
		}
	}
	r.close()
	defer w.k.end()
	return w.save()
}

// crashed is a world in which a daemon has died.
type crashed struct {
	*snapshot
	before map[string]string // the disks
	a      answer            // what the client saw
	passed []string
}

var errNotPassed = errors.New("the point was not passed")

// crash does the operation with a daemon that ends at a point; empty = it does not.
func crash(from *snapshot, o operation, at string) (c crashed, err error) {
	w := from.restore()
	defer w.k.end()
	c.before = w.disks()
	var r *run
	if o.boots {
		r = w.boot(at)
	} else {
		if r, err = next(w, ""); err != nil {
			return c, err
		}
		r.arm(at)
		c.a = o.do(r)
	}
	if r.daemon != nil && !r.dead() {
		err = r.rest() // the point may be in what is done after the answer
	}
	if at == "" && err == nil && !o.boots && !c.a.acked {
		err = fmt.Errorf("without a crash: %w", c.a.err)
	}
	if at != "" && !r.dead() {
		err = errors.Join(err, errNotPassed)
	}
	c.passed = r.points()
	r.close()
	c.snapshot = w.save()
	return c, err
}

// end goes on from a crash, and looks at everything. recovery is what was passed on the way.
func (c crashed) end(o operation, e ending) (recovery []string, err error) {
	w := c.restore()
	defer func() { w.k.end() }()
	r, err := e.then(w, o)
	defer r.close()
	if err == nil && r.daemon == nil {
		err = errors.New("no daemon starts")
	}
	if err != nil {
		return nil, err
	}
	records, err := r.records()
	if err != nil {
		return nil, err
	}
	if o.resets {
		for path := range c.before {
			if v, _ := r.record(web); path == v.Runtime.SystemOverlay {
				delete(c.before, path)
			}
		}
	}
	errs := []error{w.kept(c.before, records)}
	if !e.acts {
		if err := o.kept(r, c.a); err != nil {
			errs = append(errs, fmt.Errorf("lost: %w", err))
		}
	}
	if v, there := r.record("other"); !o.bare && (!there || v.Want != vm.WantRunning && !w.rebooted && !o.reboots) {
		errs = append(errs, fmt.Errorf("lost: the VM beside it is %s (%s)", v.State, v.Runtime.LastError))
	}
	if w.stranger.PID != 0 && !w.rebooted && !w.k.Alive(w.stranger) {
		errs = append(errs, errors.New("lost: an unrelated process was killed"))
	}
	return r.points(), errors.Join(errs...)
}

// again is a daemon that dies at a point of its recovery, and one after it.
func again(at string) ending {
	return ending{crashAgain, func(w *world, _ operation) (*run, error) {
		r, err := next(w, at)
		if err == nil && !r.dead() {
			err = errNotPassed
		}
		r.close()
		if err != nil {
			return r, err
		}
		return next(w, "")
	}, false, nil}

}

// Second crashes are as many as the square of the points. Each operation meets every label of its recoveries, unless no
// recovery passes it twice, and of the other pairs one in so many.
const (
	allEnv = "BANGER_CRASH_ALL"
	stride = 41
)

// everyPoint is 1, so that each point is met, but under the race detector.
var everyPoint = 1

// taken counts cases of a second crash, over all operations.
var taken atomic.Int64

// sampled says whether to do the pair: met are the labels at which this operation's recovery was cut off.
func sampled(met map[string]bool, at string) bool {
	return !met[labelOf(at)] && everyPoint == 1 || os.Getenv(allEnv) != "" || taken.Add(1)%stride == 0
}

// labelOf is a point without the number of its pass.
func labelOf(point string) string {
	label, _, _ := strings.Cut(point, "#")
	return label
}

func TestCrashAtEveryPoint(t *testing.T) {
	passed := newKindsPassed(t)
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			if o.name == "kernel import" || o.name == "kernel delete" { // which begins with one
				testhost.Need(t, testhost.Depmod)
			}
			from := beginning(t, o)
			defer from.w.close()
			whole, err := crash(from, o, "")
			if err != nil {
				t.Fatal(err)
			}
			if len(whole.passed) == 0 {
				t.Fatal("it passes no point")
			}
			passed.add(whole.passed)
			met := map[string]bool{}
			sum := Result{Operation: o.name}
			count := func(what, ending string, err error) {
				sum.Cases++
				switch {
				case err == nil:
					sum.Converged++
				case strings.Contains(err.Error(), "lost: "):
					sum.Lost++
				default:
					sum.Leaked++
				}
				if err != nil {
					t.Errorf("%s, then %s:\n%v", what, ending, err)
				}
				if err != nil && *impatient {
					t.FailNow()
				}
			}
			for n, p := range whole.passed {
				if n%everyPoint != 0 {
					results.Lock()
					results.passedBy++
					results.Unlock()
					continue
				}
				if strings.HasPrefix(p, act.Unnamed+":") {
					t.Errorf("%s: its context has no operation", p)
				}
				var c crashed
				for range 5 { // workers of several VMs at once do not count alike each time
					if c, err = crash(from, o, p); !errors.Is(err, errNotPassed) {
						break
					}
				}
				if errors.Is(err, errNotPassed) {
					results.Lock()
					results.missed = append(results.missed, o.name+": "+p)
					results.Unlock()
					continue
				}
				if err != nil {
					count(p, "the crash", err)
					continue
				}
				var recovery []string
				for _, e := range endings {
					if e.suits != nil && !e.suits(o, n) {
						continue
					}
					passed, err := c.end(o, e)
					count(p, e.name, err)
					if e.name == "restart" {
						recovery = passed
					}
				}
				passed.add(recovery)
				for _, q := range recovery {
					if !sampled(met, q) {
						results.Lock()
						results.skipped++
						results.Unlock()
						continue
					}
					_, err := c.end(o, again(q))
					if errors.Is(err, errNotPassed) {
						continue // the next daemon took another way to the same end
					}
					met[labelOf(q)] = true
					count(p+" and "+q, crashAgain, err)
				}
			}
			note(t, sum)
			passed.whole()
		})
	}
}
