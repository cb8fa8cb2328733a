package engine

import (
	"strings"
	"testing"

	"banger/internal/act"
	"banger/internal/api"
)

type atRows struct{ look func() }

func (a atRows) Pass(label string) error {
	if strings.HasSuffix(label, ":rows:recorded") {
		a.look()
	}
	return nil
}

// Image and kernel of a new VM are held until its row tells of them, and no longer, whatever becomes of it.
func TestImageAndKernelAreHeldUntilTheRow(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	atCommit := int32(-1)
	_, err := d.Create(act.Watch(t.Context(), atRows{func() { atCommit = w.held.Load() }}), api.CreateRequest{Name: "web"}, nil)
	must(t, err)
	if atCommit != 2 || w.held.Load() != 0 {
		t.Errorf("%d held at the commit, want 2, and %d afterwards", atCommit, w.held.Load())
	}
}
