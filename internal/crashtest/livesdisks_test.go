package crashtest

import (
	"maps"
	"strings"

	"banger/internal/vm"
)

// writes has the guest of a VM that was started write to its disks, which must hold what it has written before.
func (l *alive) writes(name string, a answer) {
	v, there := l.r.record(name)
	if !a.acked || !there {
		return
	}
	if err := l.w.kept(l.disks, []vm.VMRecord{v}); err != nil {
		l.t.Fatalf("%s\nstart %s: %v", strings.Join(l.did, "\n"), name, err)
	}
	l.w.guestWrites(v.ID)
	l.wrote++
	maps.Copy(l.disks, l.w.disksOf(v.ID))
}

// resets forgets what a VM's guest has written to its system disk, unless the reset is refused: it may be made anew at any
// moment from now on.
func (l *alive) resets(name string, a answer) {
	if vm.CodeOf(a.err) == vm.CodeConflict {
		return
	}
	if v, there := l.r.record(name); there {
		delete(l.disks, v.Runtime.SystemOverlay)
	}
}
