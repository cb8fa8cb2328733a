package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// judge holds the VM against what it may be after the deaths, and what is left of it; then comes the ending.
func (m *matrix) judge(t *testing.T, o operation, e ending, code int, noVMM bool) {
	t.Helper()
	if o.then != nil {
		o.then(m, outcome{t, o, code})
	}
	if o.library {
		return
	}
	had := o.before != absent
	b := m.with(t)
	is := m.settle(t, o)
	lost := func(what string) {
		t.Helper()
		m.lost(outcome{t, o, code}, what)
	}
	switch {
	case is == absent && had && !strings.HasPrefix(o.name, "delete"):
		lost("the VM is lost")
	case is == absent && code == 0 && !o.rm && !strings.HasPrefix(o.name, "delete"):
		lost("the command succeeded, and there is no VM")
	case is != absent && (o.rm || code == 0 && strings.HasPrefix(o.name, "delete")):
		t.Errorf("it is %s and ought to be gone", is)
	case noVMM && is == running && o.policy == "":
		t.Error("it runs, and its VMM was killed")
	case is != running && o.policy != "":
		t.Errorf("its policy has it run, and it is %s: %+v", is, b.show(subject).Runtime)
	}
	if is == absent {
		m.nothingLeft(t, o)
		return
	}
	if is == running {
		m.nothingMore(t, o)
	} else {
		m.nothingHeld(t, o)
	}
	m.heldByTheDaemon(t, o)
	if e == startedUp {
		b.ok("vm", "start", "-q", subject)
		if had {
			if got := b.ok("vm", "exec", subject, "--", "cat", "/root/mark"); got != "kept\n" {
				lost(fmt.Sprintf("its data is %q", got))
			}
		} else {
			b.ok("vm", "exec", subject, "--", "sh", "-c", "echo kept > /root/mark; sync")
		}
	}
	if e == deleted || !had {
		b.ok("vm", "delete", "-q", subject)
		m.nothingLeft(t, o)
	}
}

// lost counts what a client was told, or had, and is not so.
func (m *matrix) lost(c outcome, what string) {
	c.Helper()
	m.result(c.operation).Lost++
	c.Error(what)
}
