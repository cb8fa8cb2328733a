package daemon_test

import (
	"encoding/json"
	"slices"
	"testing"

	"banger/internal/api"
)

// TestPendingChanges: what a machine does not have yet is told by every way to look at its VM, to the next daemon too, and by
// none once the VM has been started anew.
func TestPendingChanges(t *testing.T) {
	t.Parallel()
	p := newStandInPlace(t)
	p.hold(t)
	look := func(when string, want ...string) {
		t.Helper()
		var listed []api.VMListed
		must(t, json.Unmarshal(p.run(t, "banger", "vm", "list", "--json"), &listed))
		var summary []string
		must(t, json.Unmarshal(p.run(t, "banger", "vm", "list", "--format", "{{json .Pending}}"), &summary))
		if shown := p.show(t, "web").Pending; len(listed) != 1 || !slices.Equal(listed[0].Pending, want) || !slices.Equal(summary, want) || !slices.Equal(shown, want) {
			t.Errorf("%s, it lists %+v and %q, and shows %q", when, listed, summary, shown)
		}
	}
	look("as it was started")
	p.run(t, "banger", "vm", "set", "--memory", "640M", "--cpus", "2", "web")
	look("after a change", api.PendingVCPU, api.PendingMemory)
	p.killDaemon(t)
	p.answers(t, "web")
	look("after a crash of the daemon", api.PendingVCPU, api.PendingMemory)
	p.run(t, "banger", "vm", "restart", "web")
	look("after its restart")
}
