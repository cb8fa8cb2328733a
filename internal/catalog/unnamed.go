package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
)

// Unnamed are the digests that may be on the disk without a name, as the records know: internal/store. A directory of which
// neither they nor a name tell is no crash's: the records are older than it.
type Unnamed interface {
	Add(ctx context.Context, digest string) error
	Drop(ctx context.Context, digest string) error
	All(ctx context.Context) ([]string, error)
}

// Settle removes at a daemon's start those of the paths left, all without a name, that no database of a backup can have made
// so: staging directories, and directories of digests that u knows. The others are told in the error, as vm.CodeConflict. nil for u:
// all are removed. kept are their names.
func Settle(ctx context.Context, noun, stage string, u Unnamed, left []string, remove func(ctx context.Context, path string) error) (kept []string, err error) {
	known := map[string]bool{}
	if u != nil {
		all, err := u.All(ctx)
		if err != nil {
			return nil, fmt.Errorf("reconcile %ss: %w", noun, err)
		}
		for _, digest := range all {
			known[strings.TrimPrefix(digest, "sha256:")] = true
		}
	}
	var errs []error
	dir := ""
	for _, path := range left {
		name := filepath.Base(path)
		if u != nil && !known[name] && !strings.HasPrefix(name, stage) {
			kept, dir = append(kept, name), path
			continue
		}
		err := remove(ctx, path)
		if err == nil && known[name] {
			err = u.Drop(ctx, "sha256:"+name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove a leftover %s: %w", noun, err))
		}
	}
	if len(kept) > 0 {
		errs = append(errs, vm.Errorf(vm.CodeConflict, "%d %ss have no record, as after an older database was restored, and are kept; the last is %s", len(kept), noun, dir).
			WithHint("banger doctor --leaks names them all, and with --fix removes them"))
	}
	return kept, errors.Join(errs...)
}

// Forget drops the digests of which there is no directory below dir.
func Forget(ctx context.Context, u Unnamed, dir string) error {
	if u == nil {
		return nil
	}
	all, err := u.All(ctx)
	errs := []error{err}
	for _, digest := range all {
		if _, err := os.Lstat(filepath.Join(dir, strings.TrimPrefix(digest, "sha256:"))); errors.Is(err, os.ErrNotExist) {
			errs = append(errs, u.Drop(ctx, digest))
		}
	}
	return errors.Join(errs...)
}
