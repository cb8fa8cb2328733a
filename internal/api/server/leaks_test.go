package server

import (
	"context"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// halfLook could not see everything.
type halfLook struct{}

func (halfLook) err() error {
	return vm.Errorf(vm.CodeInternal, "list loop devices: input/output error").WithHint("mend the disk")
}

func (h halfLook) List(context.Context) ([]inventory.Finding, error) {
	return []inventory.Finding{{Object: inventory.Object{Kind: "tap device", Name: "bt1"}}}, h.err()
}

func (h halfLook) Fix(context.Context, func(kind, name string) bool, ...vm.ID) ([]inventory.Outcome, error) {
	return nil, h.err()
}

// Who only listed is not told that nothing was removed.
func TestAHalfLookSaysWhatCameOfIt(t *testing.T) {
	c, _, _ := serve(t)
	_, listed := c.Objects(t.Context())
	_, fixed := c.Fix(t.Context(), api.FixRequest{})
	for err, want := range map[error]string{
		listed: "nothing is listed: what holds a thing may not have been seen; mend the disk",
		fixed:  "nothing was removed; mend the disk",
	} {
		if err == nil || !strings.Contains(err.Error(), "look for what banger has on this host: list loop devices") || vm.HintOf(err) != want {
			t.Errorf("%v, hint %q, want %q", err, vm.HintOf(err), want)
		}
	}
}
