package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"banger/internal/act"
	"banger/internal/crashtest"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// ending is what happens after the daemon's death.
type ending string

const (
	restarted ending = "restart"
	deleted   ending = "delete after restart"
	bothDie   ending = "VMM killed as well, restart"
	startedUp ending = "start after restart"
)

// A start takes a boot, the others do not: it comes round less often.
var endings = []ending{restarted, deleted, bothDie, deleted, restarted, startedUp, bothDie, deleted}

// point is the n-th time that an operation passes a label.
type point struct {
	label string
	n     int
}

func (p point) String() string { return p.label + "#" + strconv.Itoa(p.n) }

// matrix is a root in which one VM is made and lost, again and again.
type matrix struct {
	*box
	trace      string                     // the points that armed processes passed
	baseline   testhost.Snapshot          // the host without the VM
	ids        map[string]bool            // of the VMs there were: what they held is named by them
	holds      map[string]descriptorKinds // of a fresh daemon, with the VM running and not
	now        string                     // the name of the test that is being run
	results    []*crashtest.Result        // of each test and operation
	operations []operation
	was        int // the pid of the VMM before a restart by policy
	missed     int // points that were not met
	next       int // of endings
}

// TestMatrix kills the shipped daemon at the points that each operation really passes, on this host's kernel. Whatever
// happened, the next command finds a VM that is what its record says, its data is there, and after a delete nothing is.
func TestMatrix(t *testing.T) {
	which := newChoice(t)
	t.Logf("these points again: %v", which)
	m := newMatrix(t)
	m.next = which.offset / which.every
	passed := map[string][]point{}
	for _, o := range m.operations {
		m.begin(t, o)
		_ = m.result(o) // none, too, where an earlier run of this test had found something
		passed[o.name] = m.points(t, o)
	}
	left := 0
	for nth, o := range m.operations {
		turns := which.of(nth, o, passed[o.name])
		left += len(passed[o.name]) - len(turns)
		for _, p := range turns {
			m.try(t, o, p.point, "", func(t *testing.T) bool { return m.crash(t, o, p.point) })
			if p.victim != "" {
				m.try(t, o, p.point, p.victim, func(t *testing.T) bool { return m.strike(t, o, p.point, p.victim) })
			}
		}
	}
	// What is made once only, and what hangs on the moment, is not met again. But a daemon that is never killed proves nothing.
	if sum := m.note(); m.missed*10 > sum.Cases {
		t.Errorf("%d points were not met again, %d were", m.missed, sum.Cases)
	}
	if left > 0 {
		t.Logf("left out: %d points (%v)", left, which)
	}
}

// newMatrix is a root in which what is made once is made, and it is known what is on the host without the VM, and what a fresh daemon holds.
func newMatrix(t *testing.T) *matrix {
	t.Helper()
	m := &matrix{box: newBox(t), ids: map[string]bool{}, now: t.Name(), holds: map[string]descriptorKinds{}}
	m.trace = filepath.Join(m.root, "trace")
	t.Cleanup(func() { _ = os.Remove(m.trace) })
	m.operations = operations
	if testhost.Alone() {
		t.Log("images, kernels and published ports are no other here than on the host: their operations are left to it")
	} else {
		m.operations = append(slices.Concat(portOperations, operations), libraryOperations(librarySource(t))...)
	}
	m.be(t, running)
	m.rememberHolds(t, running)
	m.be(t, absent)
	m.rememberHolds(t, atRest)
	_, _, _ = m.run(nil, "daemon", "stop")
	m.baseline = m.look(t)
	return m
}

// try runs one case, which says whether its point was met.
func (m *matrix) try(t *testing.T, o operation, p point, v victim, one func(*testing.T) bool) {
	name := o.name + " at " + p.String()
	if v != "" {
		name += ", " + string(v) + " dies"
	}
	met := false
	above := m.now
	defer func() { m.now = above }()
	ok := t.Run(name, func(t *testing.T) {
		m.now = t.Name()
		met = one(t)
	})
	if ok && met {
		m.result(o).Converged++
	}
}

// begin brings about what an operation begins with.
func (m *matrix) begin(t *testing.T, o operation) {
	t.Helper()
	m.be(t, o.before)
	for _, v := range m.with(t).list() {
		has, err := vm.ParseRestart(v.Spec.Restart)
		want, wantErr := vm.ParseRestart(o.policy)
		if err := errors.Join(err, wantErr); err != nil {
			t.Fatal(err)
		}
		if v.Name == subject && has != want {
			m.with(t).ok("vm", "set", "--restart", want.When, subject)
		}
	}
	if o.prepare != nil {
		o.prepare(m, t)
	}
}

// be brings the VM to a state by ordinary commands, with a mark on its work disk.
func (m *matrix) be(t *testing.T, state string) {
	t.Helper()
	b := m.with(t)
	is := m.state(t)
	if is == state {
		return
	}
	if state == absent {
		b.ok("vm", "delete", "-q", subject)
		return
	}
	if is == absent {
		b.ok("vm", "run", "-d", "-q", "--name", subject)
		b.ok("vm", "exec", subject, "--", "sh", "-c", "echo kept > /root/mark; sync")
	}
	switch state {
	case running:
		b.ok("vm", "start", "-q", subject)
	case stopped:
		b.ok("vm", "stop", "-q", subject)
	case paused:
		b.ok("vm", "start", "-q", subject)
		b.ok("vm", "pause", "-q", subject)
	}
}

// state is what the VM is by the records, in a word.
func (m *matrix) state(t *testing.T) string {
	t.Helper()
	for _, v := range m.with(t).list() {
		if v.Name == subject {
			m.ids[string(v.ID)] = true
			return string(v.State)
		}
	}
	return absent
}

// list is what `vm list` tells.
func (b *box) list() (records []vm.VMRecord) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.ok("vm", "list", "--json")), &records); err != nil {
		b.t.Fatal(err)
	}
	return records
}

// crash is one case, unless the point is not met.
func (m *matrix) crash(t *testing.T, o operation, p point) (met bool) {
	m.begin(t, o)
	_, code, _ := m.armed(t, []string{act.CrashEnv + "=" + p.String()}, o)
	if !m.died(t, p) {
		t.Logf("%s was not passed this time", p)
		m.missed++
		return false
	}
	for _, d := range m.vmDirs(t) {
		m.ids[d.Name()] = true
	}
	m.result(o).Cases++
	e := restarted
	if !o.library {
		e = endings[m.next%len(endings)]
		m.next++
	}
	t.Logf("exit code %d; then %s", code, e)
	if e == bothDie {
		m.killVMM(t)
	}
	m.judge(t, o, e, code, e == bothDie)
	return true
}
