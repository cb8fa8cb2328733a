package kernel

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
		Name: "kernel's directory", Dir: l.Dir, Doing: "a kernel is being imported", Work: l.making,
		Find: func(ctx context.Context) ([]string, error) {
			left, _, _, err := l.leftovers(ctx)
			if vm.CodeOf(err) == vm.CodeConflict { // VMs without a record: their kernels are kept, and they are told of themselves
				err = nil
			}
			return left, err
		},
		Delete: l.removeLeft,
		Holds: func(path string) string {
			k, err := readRecord(filepath.Join(path, fileRecord))
			if err != nil {
				return ""
			}
			return fmt.Sprintf("kernel %s, made of %s", k.Name, k.Source)
		},
	}}
}
