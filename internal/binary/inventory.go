package binary

import (
	"context"
	"os"

	"banger/internal/act"
	"banger/internal/inventory"
)

// Kinds implements inventory.Source.
func (l *Library) Kinds(inventory.Place) []inventory.Kind {
	return []inventory.Kind{inventory.Residue{
		Name: "VMM's directory", Dir: l.Dir, Doing: "a VMM is being installed or deleted", Work: l.making,
		Find: func(context.Context) ([]string, error) { return l.leftovers() },
		Delete: func(ctx context.Context, path string) error {
			return act.Do(ctx, "staging.remove", func() error { return os.RemoveAll(path) })
		},
	}}
}
