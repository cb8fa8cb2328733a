// Package catalog gives, takes and tells the names of what is kept by digest: images and kernels are one each. What lies
// under a digest stays as long as a name or a VM has it, and not longer. The package must not know what that is, nor where.
package catalog

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"banger/internal/hold"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Catalog is what it takes. All fields are needed, but Pinned.
type Catalog struct {
	Noun  string // "image"
	Stand string // "VMs stand on it"
	Busy  string // why a digest may be held: "a VM is being created from it, or it is just being built or deleted"

	// Digest is what a name stands for (vm.CodeNotFound), Users are the names and the VMs that have a digest. Drop takes a name
	// away in one transaction, unless VMs have the digest: it returns these then. last says that no other name has it.
	Digest func(ctx context.Context, name string) (string, error)
	Users  func(ctx context.Context, digest string) (names, vms []string, err error)
	Drop   func(ctx context.Context, name, digest string) (users []string, last bool, err error)

	// Copy gives a digest a name beside the one that it has: vm.CodeExists where that is taken, unless it is to move, CodeConflict
	// where from has another digest by now.
	Copy func(ctx context.Context, from, digest, to string, move bool) error

	// Pinned fails where VMs may stand on digests of which no record tells; nothing is deleted then. nil: that is not known.
	Pinned func(ctx context.Context) ([]string, error)

	// Claim says that what a digest has on the disk is no orphan, until end is called. Discard deletes it.
	Claim   func(digest string) (end func())
	Discard func(ctx context.Context, digest string) error

	Uses *hold.Set // of digests
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName refuses what cannot be a name (vm.CodeInvalid).
func (c *Catalog) CheckName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return vm.Errorf(vm.CodeInvalid, "%s name %q is not usable", c.Noun, name).
		WithHint("use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit")
}

var unusable = regexp.MustCompile(`[^a-z0-9._-]+`)

// NameOf makes s a usable name, as far as that is possible.
func NameOf(s string) string {
	s = unusable.ReplaceAllString(strings.ToLower(s), "-")
	if len(s) > 63 {
		s = s[:63]
	}
	return strings.Trim(s, "._-")
}

// find is Digest, and words the error where there is none.
func (c *Catalog) find(ctx context.Context, what, name string) (string, error) {
	digest, err := c.Digest(ctx, name)
	if vm.CodeOf(err) == vm.CodeNotFound {
		hint := vm.HintOf(err) // which name was meant, maybe
		if hint == "" {
			hint = "banger " + c.Noun + " list shows those there are"
		}
		return "", vm.Errorf(vm.CodeNotFound, "%s: there is none of that name", what).WithHint("%s", hint)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return digest, nil
}

// Hold returns the digest of a name, which is not deleted until release is called.
func (c *Catalog) Hold(ctx context.Context, what, name string) (digest string, release func(), err error) {
	for {
		if digest, err = c.find(ctx, what, name); err != nil {
			return "", nil, err
		}
		if release, err = c.Uses.Hold(ctx, digest); err != nil {
			return "", nil, fmt.Errorf("%s: %w", what, err)
		}
		// Until it is found under a hold, it may be deleted as soon as it was found.
		now, err := c.find(ctx, what, name)
		if err == nil && now == digest {
			return digest, release, nil
		}
		release()
		if err != nil {
			return "", nil, err
		}
	}
}

// Delete takes a name away, and what lies under its digest when no other name has it. only, unless empty, is the digest that
// it must have. vm.CodeNotFound when there is none of that name; vm.CodeConflict while VMs are of the digest, whether they run or
// not, or it is held, or the name has got another one.
func (c *Catalog) Delete(ctx context.Context, name, only string) error {
	what := "delete " + c.Noun + " " + name
	digest, err := c.find(ctx, what, name)
	if err != nil {
		return err
	}
	if only != "" && digest != only {
		return vm.Errorf(vm.CodeConflict, "%s: it was replaced meanwhile", what).WithHint("look again with banger %s list", c.Noun)
	}
	// From here to the end nobody begins to use the digest: not even its next build, which would find the files still there.
	done, ok := c.Uses.Take(digest)
	if !ok {
		return vm.Errorf(vm.CodeConflict, "%s: %s", what, c.Busy).WithHint("try again when that has ended")
	}
	defer done()
	if c.Pinned != nil {
		if _, err := c.Pinned(ctx); err != nil { // VMs may stand on it of which no record tells
			return vm.Errorf(vm.CodeOf(err), "%s: find the %ss of VMs: %w", what, c.Noun, err).WithHint("%s", vm.HintOf(err))
		}
	}
	defer c.Claim(digest)() // nor are these orphans, once the row is gone
	users, last, err := c.Drop(ctx, name, digest)
	if err != nil {
		return vm.Errorf(vm.CodeOf(err), "%s: %w", what, err).WithHint("%s", vm.HintOf(err))
	}
	if len(users) > 0 {
		return vm.Errorf(vm.CodeConflict, "%s: %s: %s", what, c.Stand, inventory.Names(users)).WithHint("delete these VMs first: banger vm delete NAME")
	}
	if !last {
		return nil
	}
	if err := c.Discard(context.WithoutCancel(ctx), digest); err != nil {
		return fmt.Errorf("%s: its name is gone, its files go when the daemon is started next: %w", what, err)
	}
	return nil
}

// Sweep deletes what lies under a digest that a name or a VM has just given up, if nobody else has it. What is held is left:
// it is about to be had, or goes when the daemon is started next.
func (c *Catalog) Sweep(ctx context.Context, digest string) error {
	what := fmt.Sprintf("remove %s %s, which nobody needs any more", c.Noun, digest)
	// Before anything is locked: most have a name still.
	if names, vms, err := c.Users(ctx, digest); err != nil || len(names)+len(vms) > 0 || c.Pinned == nil {
		return err
	}
	done, ok := c.Uses.Take(digest)
	if !ok {
		return nil
	}
	defer done()
	if _, err := c.Pinned(ctx); vm.CodeOf(err) == vm.CodeConflict { // VMs without a record, which doctor tells of
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if names, vms, err := c.Users(ctx, digest); err != nil || len(names)+len(vms) > 0 {
		return err
	}
	defer c.Claim(digest)()
	if err := c.Discard(context.WithoutCancel(ctx), digest); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
