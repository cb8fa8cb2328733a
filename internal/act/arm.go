package act

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Variables of the environment that arm a process.
const (
	CrashEnv = "BANGER_CRASH_AT"    // LABEL or LABEL#N: be killed at the N-th time that this point is passed
	TraceEnv = "BANGER_CRASH_TRACE" // FILE: append each point that is passed, a line each
)

// Arm has this process do what its environment asks for; call it first of all. A process that is not armed is told
// nothing by anybody else. A value that can never be met is an error: a test that kills nobody would pass.
func Arm(getenv func(string) string) error {
	p := &points{die: die}
	if at := getenv(CrashEnv); at != "" {
		if err := p.at(at); err != nil {
			return err
		}
	}
	if path := getenv(TraceEnv); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("trace crash points (%s): %w", TraceEnv, err)
		}
		p.trace = f
	}
	if p.label == "" && p.trace == nil {
		return nil
	}
	var o Observer = p
	process.Store(&o)
	watched.Store(true)
	return nil
}

// points is the observer of a process that was armed.
type points struct {
	die func()

	mu    sync.Mutex
	trace io.Writer
	label string
	left  int // times to pass label until the end
}

func (p *points) at(value string) error {
	label, times, counted := strings.Cut(value, "#")
	n := 1
	if counted {
		var err error
		if n, err = strconv.Atoi(times); err != nil || n < 1 {
			return fmt.Errorf("%s=%s: %q is no number of times", CrashEnv, value, times)
		}
	}
	if !isPoint(label) {
		return fmt.Errorf("%s=%s: a point is written <operation>:<object>:<before|made|recorded>", CrashEnv, value)
	}
	p.label, p.left = label, n
	return nil
}

// isPoint says whether a label can be one. Every command of the CLI begins here: an expression would be compiled first.
func isPoint(label string) bool {
	part := strings.Split(label, ":")
	if len(part) != 3 || part[0] == "" || part[1] == "" || strings.ContainsAny(label, "# ") {
		return false
	}
	return part[2] == "before" || part[2] == "made" || part[2] == "recorded"
}

// Pass implements Observer. The line is in the file before the process ends.
func (p *points) Pass(label string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trace != nil {
		_, _ = io.WriteString(p.trace, label+"\n") // one write: several processes may share the file
	}
	if label == p.label {
		if p.left--; p.left == 0 {
			p.die()
		}
	}
	return nil
}

// die ends the process as kill -9 does: nothing is tidied up, nothing deferred runs.
func die() {
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {} // it may take the kernel a moment
}
