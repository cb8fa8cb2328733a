package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/handles"
	"banger/internal/host/proc"
	"banger/internal/testhost"
	"banger/internal/vm"
)

const (
	stormEnv     = "BANGER_TEST_STORM" // how long it lasts, as "2m"
	stormClients = 20
	stormVMs     = 10
)

// TestStorm has many clients do what they like to a few VMs while the daemon, and now and then a VMM, is killed. Then it
// is quiet, and each VM is what its record says: no process without a record, no record without its process, nothing
// left. The programs, the processes and the kills are real; the guests are stand-ins.
func TestStorm(t *testing.T) {
	testhost.Need(t, testhost.Real)
	lasts := 20 * time.Second
	if v := os.Getenv(stormEnv); v != "" {
		var err error
		lasts, err = time.ParseDuration(v)
		must(t, err)
	}
	p := newStandInPlace(t)
	seed := uint64(time.Now().UnixNano())
	s := &storm{place: p, t: t, counts: map[string]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var clients sync.WaitGroup
	for i := range stormClients {
		clients.Go(func() { s.client(ctx, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	s.killer(ctx, rand.New(rand.NewPCG(seed, stormClients)))
	clients.Wait()
	t.Logf("seed %d, %v: %d commands succeeded, %d failed; %d daemons and %d VMMs were killed", seed, lasts,
		s.counts["ok"], s.counts["failed"], s.counts["daemon"], s.counts["vmm"])
	if s.counts["ok"] == 0 || s.counts["daemon"] == 0 {
		t.Error("nothing happened")
	}
	s.settled()
	for _, r := range p.list(t) {
		p.run(t, "banger", "vm", "delete", r.Name)
	}
	s.settled()
}

type storm struct {
	place
	t      *testing.T
	mu     sync.Mutex
	counts map[string]int
}

func (s *storm) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// client does one thing after the other until ctx ends. A command may fail, since others do what they like as well; it
// must not hang or panic.
func (s *storm) client(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		name := fmt.Sprintf("v%d", r.IntN(stormVMs))
		all := [][]string{
			{"vm", "create", "--name", name}, {"vm", "start", name}, {"vm", "start", name}, {"vm", "stop", name}, {"vm", "stop", "--time", "1", name},
			{"vm", "kill", name}, {"vm", "delete", name}, {"vm", "exec", name, "--", "hello"}, {"vm", "run", "--rm", "--", "hello"},
			{"vm", "run", "-d", "--name", name}, {"vm", "run", "-d", "--name", name, "-p", "80"}, {"vm", "ports", "add", name, "81"}, {"vm", "ports", "remove", name, "81"}, {"vm", "list", "--json"}, {"vm", "show", name}, {"doctor", "--leaks"},
		}
		args := all[r.IntN(len(all))]
		bounded, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute) // of the test, not of the storm: what has begun ends by itself
		cmd := s.command(s.t, "banger", args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		done := make(chan error, 1)
		if err := cmd.Start(); err != nil {
			s.t.Error(err)
			cancel()
			return
		}
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err == nil {
				s.count("ok")
			} else {
				s.count("failed")
			}
			if strings.Contains(stderr.String(), "goroutine ") || strings.Contains(stderr.String(), "panic") {
				s.t.Errorf("banger %v: %s", args, &stderr)
			}
		case <-bounded.Done():
			_ = cmd.Process.Kill()
			<-done
			s.t.Errorf("banger %v does not end: %s", args, &stderr)
		}
		cancel()
	}
}

// killer kills the daemon every one to four seconds, and every fifth time a VMM as well.
func (s *storm) killer(ctx context.Context, r *rand.Rand) {
	for {
		select {
		case <-time.After(time.Second + time.Duration(r.IntN(3000))*time.Millisecond):
		case <-ctx.Done():
			return
		}
		if machines := s.machines(s.t); len(machines) > 0 && r.IntN(5) == 0 {
			if proc.Signal(machines[r.IntN(len(machines))], unix.SIGKILL) == nil {
				s.count("vmm")
			}
		}
		b, err := os.ReadFile(s.DaemonLock())
		if err != nil {
			continue // none was started yet
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		id, err := proc.Identify(pid)
		if err != nil {
			continue // nobody has started the next one yet
		}
		if args, err := proc.Args(pid); err != nil || filepath.Base(args[0]) != "bangerd" {
			continue
		}
		if proc.Signal(id, unix.SIGKILL) == nil {
			s.count("daemon")
		}
	}
}

// isOpen waits until a port of a VM that runs is open: where it was another's for a moment, it is tried again.
func (s *storm) isOpen(p vm.Port) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // seen as users see it
		c, err := net.Dial("tcp4", p.Host())
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("port %s: %v", p, err)
			return
		}
	}
}

// settled waits until every VM is at rest, and holds what there is against what the records say.
func (s *storm) settled() {
	t := s.t
	t.Helper()
	var all []vm.VMRecord
	atRest := func() bool {
		all = s.list(t)
		for _, r := range all {
			if r.State != vm.StateRunning && r.State != vm.StateStopped && r.State != vm.StateError {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(2 * time.Minute); !atRest(); time.Sleep(50 * time.Millisecond) { // seen as users see it
		if time.Now().After(end) {
			t.Fatalf("no rest: %+v", all)
		}
	}
	running, known := 0, map[string]bool{}
	states := map[vm.State]int{}
	for _, r := range all {
		states[r.State]++
		known[string(r.ID)] = true
		found, err := proc.Find(func(args []string) bool { return len(args) == argCount && args[argAPI] == r.Runtime.APISockPath })
		must(t, err)
		want := 0
		if r.State == vm.StateRunning {
			want, running = 1, running+1
			s.answers(t, r.Name)
			for _, p := range r.Spec.Ports {
				s.isOpen(p)
			}
		} else if !handles.Read(r.ID, r.Runtime.VMDir).IsZero() {
			t.Errorf("VM %s is %s, and holds %+v", r.Name, r.State, handles.Read(r.ID, r.Runtime.VMDir))
		}
		if len(found) != want {
			t.Errorf("VM %s is %s (want %s), and has processes %+v: %s", r.Name, r.State, r.Want, found, r.Runtime.LastError)
		}
		if _, err := os.Stat(filepath.Dir(r.Runtime.APISockPath)); (err == nil) != (want == 1) {
			t.Errorf("VM %s is %s, its directory of sockets: %v", r.Name, r.State, err)
		}
	}
	if n := len(s.machines(t)); n != running {
		t.Errorf("%d processes, %d VMs run", n, running)
	}
	entries, err := os.ReadDir(s.VMs())
	must(t, err)
	for _, e := range entries {
		if !known[e.Name()] {
			t.Errorf("%s has no record", filepath.Join(s.VMs(), e.Name()))
		}
	}
	if out, err := s.command(t, "banger", "doctor", "--leaks", "--json").Output(); err != nil {
		t.Errorf("doctor finds leaks: %v\n%s", err, out)
	}
	b, _ := json.Marshal(states)
	t.Logf("at rest: %s", b)
}
