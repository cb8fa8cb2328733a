package catalog

import (
	"context"
	"fmt"

	"banger/internal/vm"
)

// Tag gives what has a name a second one, to. One that is another's is refused (vm.CodeExists) unless it is to move: VMs of the
// other keep it, and it goes with the last of them where it has no other name.
func (c *Catalog) Tag(ctx context.Context, from, to string, move bool) error {
	what := fmt.Sprintf("tag %s %s as %s", c.Noun, from, to)
	if err := c.CheckName(to); err != nil {
		return err
	}
	digest, release, err := c.Hold(ctx, what, from)
	if err != nil {
		return err
	}
	defer release()
	was, err := c.Digest(ctx, to)
	switch {
	case err == nil && was == digest:
		return nil
	case err != nil && vm.CodeOf(err) != vm.CodeNotFound:
		return fmt.Errorf("%s: %w", what, err)
	}
	err = c.Copy(ctx, from, digest, to, move)
	if vm.CodeOf(err) == vm.CodeExists {
		return vm.Errorf(vm.CodeExists, "%s: %w", what, err).WithHint("--force gives it the name; VMs of the other keep what they have")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if was != "" {
		_ = c.Sweep(ctx, was) // or the next start of the daemon does
	}
	return nil
}

// Unused says which digests no VM is of. It fails where that cannot be known.
func (c *Catalog) Unused(ctx context.Context) (func(digest string) bool, error) {
	pinned := map[string]bool{}
	if c.Pinned != nil {
		all, err := c.Pinned(ctx)
		if err != nil {
			return nil, vm.Errorf(vm.CodeOf(err), "find the %ss of VMs: %w", c.Noun, err).WithHint("%s", vm.HintOf(err))
		}
		for _, digest := range all {
			pinned[digest] = true
		}
	}
	return func(digest string) bool { return !pinned[digest] }, nil
}
