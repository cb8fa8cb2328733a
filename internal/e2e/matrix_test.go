package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/act"
	"banger/internal/crashtest"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// everyEnv says how thin the matrix is: N takes every N-th point, 1 all of them. What is left out is printed.
const (
	everyEnv     = "BANGER_CRASH_EVERY"
	defaultEvery = 4 // a case takes a boot as often as not
)

// othersEvery says how much thinner it is for those who die without the daemon.
const othersEvery = 4

// operation is a command whose daemon is killed at each point that it passes.
type operation struct {
	name   string
	before string // what the VM is at the beginning: absent, stopped, running, paused
	args   []string
	rm     bool // the VM goes with its session
}

const (
	absent  = "absent"
	stopped = "stopped"
	running = "running"
	paused  = "paused"

	subject = "crash" // the VM's name
)

var operations = []operation{
	{"run", absent, []string{"vm", "run", "-d", "-q", "--name", subject}, false},
	{"run --rm", absent, []string{"vm", "run", "--rm", "-q", "--name", subject, "--", "true"}, true},
	{"delete, stopped", stopped, []string{"vm", "delete", "-q", subject}, false},
	{"start", stopped, []string{"vm", "start", "-q", subject}, false},
	{"stop", running, []string{"vm", "stop", "-q", subject}, false},
	{"kill", running, []string{"vm", "kill", "-q", subject}, false},
	{"pause", running, []string{"vm", "pause", "-q", subject}, false},
	{"resume", paused, []string{"vm", "resume", "-q", subject}, false},
	{"reset", stopped, []string{"vm", "reset", "-q", subject}, false},
	{"delete", running, []string{"vm", "delete", "-q", subject}, false},
}

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
	trace    string                       // the points that armed processes passed
	baseline testhost.Snapshot            // the host without the VM
	ids      map[string]bool              // of the VMs there were: what they held is named by them
	results  map[string]*crashtest.Result // by operation
	missed   int                          // points that were not met
	next     int                          // of endings
}

// TestMatrix kills the shipped daemon at the points that each operation really passes, on this host's kernel. Whatever
// happened, the next command finds a VM that is what its record says, its data is there, and after a delete nothing is.
func TestMatrix(t *testing.T) {
	m := &matrix{box: newBox(t), ids: map[string]bool{}, results: map[string]*crashtest.Result{}}
	m.trace = filepath.Join(m.root, "trace")
	t.Cleanup(func() { _ = os.Remove(m.trace) })
	m.be(t, running) // what is made once in a root is not made again
	m.be(t, absent)
	passed := map[string][]point{}
	for _, o := range operations {
		m.be(t, o.before)
		passed[o.name] = m.points(t, o)
	}
	m.be(t, absent)
	_, _, _ = m.run(nil, "daemon", "stop")
	m.baseline = m.look(t)

	every := defaultEvery
	if text := os.Getenv(everyEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: want a number of at least 1", everyEnv, text)
		}
		every = n
	}
	left := 0
	for _, o := range operations {
		for i, p := range passed[o.name] {
			launched := strings.HasSuffix(p.label, ":process:made") // what runs is the jailer yet, where there is one
			if i%every != 0 && !launched {
				left++
				continue
			}
			m.try(t, o, p, "", func(t *testing.T) bool { return m.crash(t, o, p) })
			if v := victims[i/every/othersEvery%len(victims)]; launched {
				m.try(t, o, p, theVMM, func(t *testing.T) bool { return m.strike(t, o, p, theVMM) })
			} else if i/every%othersEvery == 1 {
				m.try(t, o, p, v, func(t *testing.T) bool { return m.strike(t, o, p, v) })
			}
		}
	}
	// What is made once only, and what hangs on the moment, is not met again. But a daemon that is never killed proves nothing.
	if sum := m.note(); m.missed*10 > sum.Cases {
		t.Errorf("%d points were not met again, %d were", m.missed, sum.Cases)
	}
	if left > 0 {
		t.Logf("left out: %d points (%s=%d)", left, everyEnv, every)
	}
}

// try runs one case, which says whether its point was met.
func (m *matrix) try(t *testing.T, o operation, p point, v victim, one func(*testing.T) bool) {
	name := o.name + " at " + p.String()
	if v != "" {
		name += ", " + string(v) + " dies"
	}
	met := false
	if t.Run(name, func(t *testing.T) { met = one(t) }) && met {
		m.result(o).Converged++
	}
}

// armed runs a command whose daemon, started by it, is told by variables where to die and what to tell.
func (m *matrix) armed(t *testing.T, env []string, args []string) (stderr string, code int) {
	t.Helper()
	_, _, _ = m.run(nil, "daemon", "stop")
	_ = os.Remove(m.trace)
	cmd := m.with(t).command(args...)
	cmd.Env = append(append(cmd.Env, act.TraceEnv+"="+m.trace), env...)
	cmd.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("banger %v: %v", args, err)
	}
	return errs.String(), cmd.ProcessState.ExitCode()
}

// points runs an operation to its end and returns the points that its daemon passed.
func (m *matrix) points(t *testing.T, o operation) []point {
	t.Helper()
	if errs, code := m.armed(t, nil, o.args); code != 0 {
		t.Fatalf("banger %v: exit code %d\n%s", o.args, code, errs)
	}
	text, err := os.ReadFile(m.trace)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	var points []point
	for label := range strings.FieldsSeq(string(text)) {
		operation, _, _ := strings.Cut(label, ":")
		if operation == "launch" || operation == "daemon-start" && o.name != operations[0].name {
			continue // the CLI's own; and once is enough
		}
		count[label]++
		points = append(points, point{label, count[label]})
	}
	return points
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
	m.be(t, o.before)
	_, code := m.armed(t, []string{act.CrashEnv + "=" + p.String()}, o.args)
	if !m.died(t, p) {
		t.Logf("%s was not passed this time", p)
		m.missed++
		return false
	}
	for _, d := range m.vmDirs(t) {
		m.ids[d.Name()] = true
	}
	m.result(o).Cases++
	e := endings[m.next%len(endings)]
	m.next++
	t.Logf("exit code %d; then %s", code, e)
	if e == bothDie {
		m.killVMM(t)
	}
	m.judge(t, o, e, code, e == bothDie)
	return true
}

// died says whether the daemon was killed at the point. No armed one is left afterwards: the command may have started
// another to tidy up.
func (m *matrix) died(t *testing.T, p point) bool {
	t.Helper()
	_, _, _ = m.run(nil, "daemon", "stop")
	text, err := os.ReadFile(m.trace)
	if err != nil {
		t.Fatal(err)
	}
	labels := strings.Fields(string(text))
	n := 0
	for i, label := range labels {
		if label != p.label {
			continue
		}
		if n++; n < p.n {
			continue
		}
		// A killed process passes no more points: what comes after is another's, and begins with how that was launched.
		if i+1 < len(labels) && !strings.HasPrefix(labels[i+1], "launch:") {
			t.Fatalf("it was not killed at %s, but went on to %s", p, labels[i+1])
		}
		return true
	}
	return false
}
