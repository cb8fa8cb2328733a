package nft

import (
	"context"
	"errors"
)

// Ours says whether a bridge has a table that carries our mark. One that is somebody else's is none, and no error.
func Ours(ctx context.Context, bridge string) (bool, error) {
	families, err := find(ctx, bridge)
	if errors.Is(err, ErrForeign) {
		err = nil
	}
	return len(families) > 0, err
}
