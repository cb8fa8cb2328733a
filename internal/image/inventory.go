package image

import (
	"context"

	"banger/internal/inventory"
	"banger/internal/vm"
)

// Kinds implements inventory.Source.
func (l *Library) Kinds(inventory.Place) []inventory.Kind {
	return []inventory.Kind{inventory.Residue{
		Name: "image's directory", Dir: l.cfg.Dir,
		Find: func(ctx context.Context) ([]string, error) {
			left, _, err := l.leftovers(ctx)
			if vm.CodeOf(err) == vm.CodeConflict { // VMs without a record: their images are kept, and they are told of themselves
				err = nil
			}
			return left, err
		},
		Delete: l.tools.remove,
	}}
}
