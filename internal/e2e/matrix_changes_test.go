package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/paths"
	"banger/internal/vm"
)

const renamed = "crashed"

// setArgs change something of each kind: what the machine has at its next start, and what is so at once.
var setArgs = []string{"vm", "set", "--memory", "640M", "--label", "team=crash", subject}

// wasSet holds that all of it is so, or nothing, and that it can be set again and taken back.
func (m *matrix) wasSet(c outcome) {
	b := m.with(c.T)
	is := func() bool {
		c.Helper()
		s := b.show(subject).Spec
		memory, label := s.MemoryMiB == 640, s.Labels["team"] == "crash"
		if memory != label {
			m.lost(c, fmt.Sprintf("half of it is set: %+v", s))
		}
		return memory
	}
	if !is() && c.code == 0 {
		m.lost(c, "the command succeeded, and nothing is set")
	}
	b.ok(setArgs...)
	if !is() {
		c.Error("it cannot be set again")
	}
	b.ok("vm", "set", "--memory", vm.DefaultMemory, "--label-rm", "team", subject)
}

// wasRenamed holds that there is one VM, under one of its names, that others know it by that name, and its guest as well.
func (m *matrix) wasRenamed(c outcome) {
	b := m.with(c.T)
	all := b.list()
	if len(all) != 1 || all[0].Name != subject && all[0].Name != renamed {
		m.lost(c, fmt.Sprintf("there is not one VM under one of its names: %+v", all))
		return
	}
	if all[0].Name == subject {
		if c.code == 0 {
			m.lost(c, "the command succeeded, and the name is the old one")
		}
		b.ok(c.args...)
	}
	v := b.until(renamed, "looked at", time.Minute, func(v api.VMView) bool { return v.State == vm.StateStopped || v.Observed.Ready })
	if v.Runtime.DNSName != renamed+".vm" {
		c.Errorf("others know it as %s", v.Runtime.DNSName)
	}
	if v.State == vm.StateRunning { // else its next start has both follow
		hosts, err := os.ReadFile(filepath.Join(v.VMDir, "known_hosts"))
		if err != nil || !strings.HasPrefix(string(hosts), renamed+".vm ") {
			c.Errorf("its host key is pinned as %q, %v", hosts, err)
		}
		if got := b.ok("vm", "exec", renamed, "--", "hostname"); got != renamed+"\n" {
			c.Errorf("its guest goes by %q", got)
		}
	}
	b.ok("vm", "rename", "-q", renamed, subject)
}

// restartedByPolicy is a VM whose guest ends by itself, and that its policy has started again. The daemon dies between the
// two, or while it starts it.
var restartedByPolicy = operation{
	name: "restart by policy", before: running, policy: vm.RestartAlways, slow: true,
	prepare: func(m *matrix, t *testing.T) { m.was = m.with(t).show(subject).Handles.PID },
	first:   []string{"vm", "exec", "-q", subject, "--", "true"},
	args:    []string{"vm", "exec", "-q", subject, "--", "sh", "-c", "echo b > /proc/sysrq-trigger"},
	code:    125,
	goes:    (*matrix).untilRestarted,
}

// untilRestarted waits until another VMM's guest is ready, or the daemon dies. It starts none, as a command would.
func (m *matrix) untilRestarted() {
	c := client.New(paths.Under(m.root).Socket())
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		v, err := c.VM(ctx, subject)
		if err != nil || v.State == vm.StateRunning && v.Observed.Ready && v.Handles.PID != m.was {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
