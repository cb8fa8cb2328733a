package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/act"
	"banger/internal/host/proc"
)

// victim is who dies when the daemon passes a point, and the daemon does not.
type victim string

const (
	theClient victim = "the client"
	theVMM    victim = "the VMM" // or the jailer that is about to become one
)

var victims = []victim{theVMM, theClient}

// strike kills somebody else as soon as the daemon has passed the point. Where there is no VMM yet, it is the client.
// Then the daemon is stopped as by a person, so that what it was at is over, and the next one has the word.
func (m *matrix) strike(t *testing.T, o operation, p point, v victim) (met bool) {
	m.begin(t, o)
	_, _, _ = m.run(nil, "daemon", "stop")
	_ = os.Remove(m.trace)
	env := []string{act.TraceEnv + "=" + m.trace}
	if len(o.first) > 0 {
		_, _ = m.runWith(t, env, o.first)
	}
	cmd := m.with(t).command(o.args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		if o.goes != nil {
			o.goes(m)
		}
		close(ended)
	}()
	for over := false; !met && !over; {
		select {
		case <-ended:
			over = true
		case <-time.After(time.Millisecond): // nothing tells of a line in a file sooner
		}
		met = m.passed(t, p)
	}
	var killed []string
	if met && v == theVMM {
		killed = m.killVMM(t)
	}
	if met && len(killed) == 0 && cmd.Process.Kill() == nil {
		killed = []string{string(theClient)}
	}
	<-ended
	if len(killed) == 0 {
		t.Logf("%s was not passed this time, or too late to kill anybody", p)
		m.missed++
		return false
	}
	_, _, _ = m.run(nil, "daemon", "stop")
	for _, d := range m.vmDirs(t) {
		m.ids[d.Name()] = true
	}
	m.result(o).Cases++
	code := cmd.ProcessState.ExitCode()
	t.Logf("killed: %s; exit code %d %s", strings.Join(killed, ", "), code, strings.TrimSpace(errs.String()))
	m.judge(t, o, restarted, code, killed[0] != string(theClient))
	return true
}

// passed says whether the trace has the point by now.
func (m *matrix) passed(t *testing.T, p point) bool {
	t.Helper()
	n := 0
	for _, label := range m.traced(t) {
		if label == p.label {
			n++
		}
	}
	return n >= p.n
}

// killVMM kills what runs of the VM, be it the VMM or the jailer that is about to become one, and names the programs.
func (m *matrix) killVMM(t *testing.T) (killed []string) {
	t.Helper()
	for _, id := range m.vmms(t) {
		args, err := proc.Args(id.PID)
		if err == nil {
			err = proc.Signal(id, syscall.SIGKILL)
		}
		if errors.Is(err, proc.ErrGone) { // a daemon that lives may be ending it
			continue
		}
		if err == nil {
			err = proc.Wait(t.Context(), id)
		}
		if err != nil {
			t.Error(err)
		}
		killed = append(killed, filepath.Base(args[0]))
	}
	return killed
}

// vmms are the VMMs of this root's VMs, and jailers. A jailed one has the VM's id among its arguments and no path.
func (m *matrix) vmms(t *testing.T) []proc.Identity {
	t.Helper()
	entries := m.vmDirs(t)
	ids, err := proc.Find(func(args []string) bool {
		program := filepath.Base(args[0])
		if program != "jailer" && program != "firecracker" && !strings.HasPrefix(program, "qemu-system") {
			return false // mkfs has a path of the VM among its arguments as well
		}
		return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
			return slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, e.Name()) })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// vmDirs are the directories of VMs, each with a VM's id for a name.
func (m *matrix) vmDirs(t *testing.T) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.root, "vms"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return entries
}
