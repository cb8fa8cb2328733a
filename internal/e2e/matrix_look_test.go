package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/crashtest"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// note prints what was done, adds it to the table, and returns the sum.
func (m *matrix) note() (sum crashtest.Result) {
	var all []crashtest.Result
	for _, r := range m.results {
		sum.Add(*r)
		all = append(all, *r)
	}
	m.t.Logf("crash cases on the %s: %d, converged %d, leaked %d, lost %d", where(), sum.Cases, sum.Converged, sum.Leaked, sum.Lost)
	if err := crashtest.Append(all); err != nil {
		m.t.Error(err)
	}
	return sum
}

func where() string {
	if testhost.Alone() {
		return crashtest.InLab
	}
	return crashtest.HostKernel
}

// result is what is counted of an operation in the test that is being run.
func (m *matrix) result(o operation) *crashtest.Result {
	for _, r := range m.results {
		if r.Test == m.now && r.Operation == o.name {
			return r
		}
	}
	r := &crashtest.Result{Where: where(), Test: m.now, Operation: o.name, Whole: m.now == m.t.Name() && crashtest.Runs(m.now)}
	m.results = append(m.results, r)
	return r
}

// settle starts a daemon and waits until the VM is at rest or lives, as its record says. It polls as a user would.
func (m *matrix) settle(t *testing.T, o operation) string {
	t.Helper()
	b := m.with(t)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		is := m.state(t)
		switch {
		case is == absent, is == stopped && !o.rm, is == string(vm.StateError):
			return is
		case is == running && !o.rm:
			v := b.show(subject)
			if v.State == vm.StateRunning && v.Observed.Alive {
				return is
			}
		case is == paused && !o.rm:
			return running // and is looked at no further
		case is == string(vm.StateStarting) && len(m.vmms(t)) > 0:
			// It lives and boots. Waiting for it would say nothing more: it is adopted, or it would have been demoted.
			if v := b.show(subject); v.State == vm.StateStarting && v.Handles.PID != 0 {
				return running
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the VM is %s and does not come to rest: %+v", is, b.list())
		}
	}
}

// look is what is on the host: all of it in the lab, where nobody else is; else what names this root or one of its VMs.
func (m *matrix) look(t *testing.T) testhost.Snapshot {
	t.Helper()
	all, err := testhost.Take(m.root)
	if err != nil {
		t.Fatal(err)
	}
	var ours testhost.Snapshot
	for _, i := range all {
		marks := append(slices.Collect(maps.Keys(m.ids)), m.root)
		named := slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(i.Text, m) })
		if i.Kind == "netns" { // others' services have their own, in the lab too: what no process lives in is nobody's
			named = i.Mentions(marks) || testhost.Alone() && !strings.Contains(i.Text, " of ")
		}
		if i.Kind == "file" && (strings.Contains(i.Text, "bangerd.") || strings.HasPrefix(filepath.Base(i.Text), "banger.db") || i.Text == m.trace) {
			continue // the daemon's own, whether it runs or not
		}
		if named || testhost.Alone() && !slices.Contains([]string{"process", "cgroup", "netns"}, i.Kind) {
			ours = append(ours, i)
		}
	}
	return ours
}

// nothingLeft holds the host against what it was without the VM. The daemon is stopped for it.
func (m *matrix) nothingLeft(t *testing.T, o operation) {
	t.Helper()
	m.heldByTheDaemon(t, o)
	_, _, _ = m.run(nil, "daemon", "stop")
	if diff := testhost.Diff(m.baseline, m.look(t)); diff != "" {
		m.result(o).Leaked++
		t.Errorf("left after the VM:\n%s", diff)
	}
}

// nothingMore is that of a VM that runs: it has one VMM, and nothing beside it is anybody's no more.
func (m *matrix) nothingMore(t *testing.T, o operation) {
	t.Helper()
	out, errs, code := m.with(t).run(nil, "doctor", "--leaks")
	if found := m.vmms(t); code != 0 || len(found) > 1 {
		m.result(o).Leaked++
		t.Errorf("it runs with the processes %+v; doctor --leaks ends with %d\n%s%s", found, code, out, errs)
	}
}

// nothingHeld is that of a VM at rest: its files alone are there.
func (m *matrix) nothingHeld(t *testing.T, o operation) {
	t.Helper()
	v := m.with(t).show(subject)
	if h := v.Handles; !h.IsZero() {
		m.result(o).Leaked++
		t.Errorf("at rest it holds %+v", h)
	}
	for _, i := range m.look(t).Minus(m.baseline) {
		if i.Kind == "file" && strings.HasPrefix(i.Text, v.VMDir) && filepath.Base(i.Text) != "handles.json" || i.Kind == "process" && strings.Contains(i.Text, "bangerd") {
			continue
		}
		if i.Kind == "socket" && strings.HasSuffix(i.Text, "bangerd.sock") || i.Kind == "file" && strings.HasSuffix(i.Text, "/run") {
			continue
		}
		m.result(o).Leaked++
		t.Errorf("at rest it has %s", i)
	}
}
