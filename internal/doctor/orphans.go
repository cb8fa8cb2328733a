package doctor

import (
	"context"

	"banger/internal/api"
	"banger/internal/inventory"
)

// orphans are what of ours is left on the host and nobody needs.
func (d *Doctor) orphans(ctx context.Context) (out []api.Problem) {
	if d.Inventory == nil {
		return nil
	}
	found, err := d.Inventory(ctx)
	if err != nil {
		out = append(out, lookFailed.problem([]any{d.Paths.DaemonLog()}, err))
	}
	for _, f := range found {
		hint := "banger doctor --leaks --fix"
		if f.Kept != "" {
			hint = "it is kept: " + f.Kept
		}
		if f.Status == inventory.Orphan {
			out = append(out, orphan.problem([]any{hint}, f.Kind, f.Name, f.Why))
		}
	}
	return out
}
