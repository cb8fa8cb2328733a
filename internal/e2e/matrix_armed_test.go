package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"banger/internal/act"
)

// armed runs an operation whose daemon, started by it, is told by variables where to die and what to tell. begun is how
// many points were passed before the operation itself.
func (m *matrix) armed(t *testing.T, env []string, o operation) (stderr string, code, begun int) {
	t.Helper()
	_, _, _ = m.run(nil, "daemon", "stop")
	_ = os.Remove(m.trace)
	env = append(env, act.TraceEnv+"="+m.trace)
	if len(o.first) > 0 {
		_, _ = m.runWith(t, env, o.first)
		begun = len(m.traced(t))
	}
	stderr, code = m.runWith(t, env, o.args)
	if o.goes != nil {
		o.goes(m)
	}
	return stderr, code, begun
}

func (m *matrix) runWith(t *testing.T, env, args []string) (stderr string, code int) {
	t.Helper()
	cmd := m.with(t).command(args...)
	cmd.Env = append(cmd.Env, env...)
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

// traced are the labels that armed processes have passed by now.
func (m *matrix) traced(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(m.trace)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// points runs an operation to its end, whose outcome must be right too, and returns the points that its daemon passed.
func (m *matrix) points(t *testing.T, o operation) []point {
	t.Helper()
	errs, code, begun := m.armed(t, nil, o)
	if code != o.code {
		t.Fatalf("banger %v: exit code %d, want %d\n%s", o.args, code, o.code, errs)
	}
	count := map[string]int{}
	var points []point
	for i, label := range m.traced(t) {
		count[label]++
		operation, _, _ := strings.Cut(label, ":")
		its := operation == "daemon-start" || operation == "listen"
		if operation == "launch" || its && o.name != operations[0].name || i < begun {
			continue // the CLI's own; and the daemon's own start once is enough
		}
		points = append(points, point{label, count[label]})
	}
	if len(points) == 0 {
		t.Fatalf("banger %v passes no point", o.args)
	}
	m.heldByTheDaemon(t, o)
	_, _, _ = m.run(nil, "daemon", "stop")
	if o.then != nil {
		o.then(m, outcome{t, o, code})
	}
	return points
}

// died says whether the daemon was killed at the point. No armed one is left afterwards: the command may have started
// another to tidy up.
func (m *matrix) died(t *testing.T, p point) bool {
	t.Helper()
	_, _, _ = m.run(nil, "daemon", "stop")
	labels := m.traced(t)
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
