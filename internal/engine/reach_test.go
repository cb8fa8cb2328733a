package engine

import (
	"os"
	"strings"
	"testing"

	"banger/internal/vm"
)

// Somebody tidied up /run while no daemon ran: the machine lives, and whoever wants its guest is told at once why that
// cannot be had, and what helps.
func TestAdoptWithoutSockets(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	d.kill()
	must(t, os.RemoveAll(w.paths.Run))
	d = w.start()
	_, err := d.Agent(t.Context(), "web")
	if vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), r.Runtime.VSockPath+" was removed") || !strings.Contains(vm.HintOf(err), "vm restart web") {
		t.Errorf("%v, hint %q", err, vm.HintOf(err))
	}
	if o := d.Observe(r); !o.Alive || o.Ready {
		t.Errorf("%+v", o)
	}
	_, err = d.Restart(t.Context(), "web", false, 0, nil)
	must(t, err)
	if _, err := d.Agent(t.Context(), "web"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
