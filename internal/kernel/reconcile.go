package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/act"
	"banger/internal/catalog"
	"banger/internal/vm"
)

// Reconcile cleans up after a daemon that died: staging directories of its imports, kernels that were published but
// never recorded and that no VM is pinned to, and cached initramfs of other guest binaries. A kernel of which the records know
// nothing is kept, and told (vm.CodeConflict): they may be older than it. A recorded kernel whose
// files are missing is told in the error (vm.CodeCorrupt), which joins all there is to say: nothing of it need stop the
// daemon. Call it before the first Import or Boot.
func (l *Library) Reconcile(ctx context.Context) error {
	left, keep, rows, err := l.leftovers(ctx)
	if keep == nil {
		return err
	}
	errs := []error{err}
	for _, k := range rows {
		if err := l.check(k.Digest); err != nil {
			errs = append(errs, vm.Errorf(vm.CodeCorrupt, "kernel %s: %w", k.Name, err).WithHint("import it again, from %s", k.Source))
		}
	}
	kept, err := catalog.Settle(ctx, "kernel", stagingPrefix, l.Unnamed, left, l.removeLeft)
	for _, name := range kept {
		keep[name] = true
	}
	errs = append(errs, err, catalog.Forget(ctx, l.Unnamed, l.Dir))
	return errors.Join(append(errs, l.sweepInitramfs(ctx, keep))...)
}

// leftovers are the paths that nobody needs: staging directories, and, where it can be known which kernels VMs boot,
// kernels that neither a VM nor a record names. keep are the names of the others; nil = nothing could be found out.
func (l *Library) leftovers(ctx context.Context) (left []string, keep map[string]bool, rows []vm.Kernel, err error) {
	entries, err := os.ReadDir(l.Dir) // before the records: an import that ends meanwhile is in both
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("reconcile kernels: %w", err)
	}
	if rows, err = l.Records.Kernels(ctx); err != nil {
		return nil, nil, nil, fmt.Errorf("reconcile kernels: %w", err)
	}
	keep = map[string]bool{}
	add := func(digest string) {
		if digestPattern.MatchString(digest) {
			keep[strings.TrimPrefix(digest, "sha256:")] = true
		}
	}
	for _, k := range rows {
		add(k.Digest)
	}
	complete := l.Pinned != nil
	if complete {
		var pinned []string
		if pinned, err = l.Pinned(ctx); err != nil {
			complete = false
			err = fmt.Errorf("reconcile kernels: find the kernels of VMs: %w", err)
		}
		for _, digest := range pinned {
			add(digest)
		}
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, stagingPrefix):
			left = append(left, filepath.Join(l.Dir, name))
		case hexPattern.MatchString(name) && !keep[name]:
			if complete {
				left = append(left, filepath.Join(l.Dir, name))
			} else {
				keep[name] = true
			}
		}
	}
	return left, keep, rows, err
}

// removeLeft deletes a staging directory, or a kernel that nobody needs.
func (l *Library) removeLeft(ctx context.Context, path string) error {
	if name := filepath.Base(path); !strings.HasPrefix(name, stagingPrefix) {
		return l.remove(ctx, name)
	}
	return unstage(ctx, path)
}

// remove deletes a kernel's directory. It loses its name first: what is half removed must not look like a kernel.
func (l *Library) remove(ctx context.Context, name string) error {
	away := filepath.Join(l.Dir, stagingPrefix+name) // which takes no room: that may be what is wanted
	err := act.Do(ctx, "kernel.remove", func() error { return os.Rename(filepath.Join(l.Dir, name), away) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, unstage(ctx, away))
}
