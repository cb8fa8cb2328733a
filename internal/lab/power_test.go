package lab

import (
	"strings"
	"testing"
)

// cuts are moments of a start at which the power goes, in seconds after the command: while the row and the disks are made,
// while the guest boots; and when it runs, with something on its disk.
var cuts = []string{"0.3", "1", "3", whenUp}

const whenUp = "up"

// testPowerCuts resets the lab while a VM is started in it. Afterwards the VM is there whole or not at all, nothing of the
// boot before is believed or left, and a VM that is there starts.
func (l *Lab) testPowerCuts(t *testing.T) {
	if err := l.Equip(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: l, t: t}
	s.quiet("banger vm create -q --name before --vmm firecracker && banger vm delete -q before; banger daemon stop")
	before := s.quiet(held)
	for _, after := range cuts {
		s.quiet("banger vmm show firecracker") // proves KVM, once a boot: else that is all that the power cuts short
		if after == whenUp {
			s.quiet("banger vm run -q -d --name cut --vmm firecracker && banger vm exec cut -- sh -c 'echo kept > /root/mark; sync'")
		} else {
			s.quiet("setsid banger vm run -q -d --name cut --vmm firecracker </dev/null >/dev/null 2>&1 & sleep " + after)
		}
		if err := l.HardReset(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.quiesce()
		is := s.quiet(`banger vm list | awk '$1 == "cut" { print $2 }'`)
		switch is {
		case "": // the power was quicker than the commit
			if after == whenUp {
				t.Error("a VM that ran is lost")
			}
		case "stopped":
			got := s.quiet("banger vm start -q cut >&2 && banger vm exec cut -- sh -c 'cat /root/mark 2>/dev/null; true' && banger vm stop -q cut >&2")
			if after == whenUp {
				s.want("what was synced", got, "kept")
			}
		default:
			t.Errorf("cut at %s: it is %s", after, is)
		}
		if leaks, stderr, code, err := l.Exec(t.Context(), "banger", "doctor", "--leaks"); code != 0 || err != nil || strings.Contains(leaks, "ORPHAN") {
			t.Errorf("cut at %s: exit code %d, %v\n%s%s", after, code, err, leaks, stderr)
		}
		s.quiet("banger vm delete -q cut 2>/dev/null; banger daemon stop")
		s.want("what is held, cut at "+after, s.quiet(held), before)
		s.want("VM directories", s.quiet("ls /var/lib/banger/vms"), "")
		t.Logf("cut at %s: the VM was %q", after, is)
	}
	t.Logf("%d power cuts", len(cuts))
}
