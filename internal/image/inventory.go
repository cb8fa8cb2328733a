package image

import (
	"context"
	"fmt"
	"path/filepath"

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
		Holds:  l.holds,
	}}
}

// holds tells which image lies whole in a directory.
func (l *Library) holds(path string) string {
	img, err := l.read(digestPrefix + filepath.Base(path))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("image %s, made of %s", img.Name, img.Source)
}
