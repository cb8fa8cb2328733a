package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"banger/internal/catalog"
	"banger/internal/vm"
)

var digestDir = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Reconcile brings the directory into line with the records at a daemon's start: it removes what builds left that died
// with their daemon, and images that have no name, as the records know, and that no VM is pinned to. One of which the records
// know nothing is kept, and told (vm.CodeConflict): they may be older than it. Images that are recorded and not there are told
// in the error, as vm.CodeCorrupt; they stay recorded, and the next Ensure builds them again. Every step is done even
// when one fails.
func (l *Library) Reconcile(ctx context.Context) error {
	left, images, err := l.leftovers(ctx)
	errs := []error{err}
	for _, i := range images {
		if _, err := os.Stat(l.RootPath(i.Digest)); err != nil {
			errs = append(errs, vm.Errorf(vm.CodeCorrupt, "image %s: its file is gone: %w", i.Name, err).WithHint("banger image build %s", i.Name))
		}
	}
	_, err = catalog.Settle(ctx, "image", stagePrefix, l.cfg.Unnamed, left, l.tools.remove)
	return errors.Join(append(errs, err, catalog.Forget(ctx, l.cfg.Unnamed, l.cfg.Dir))...)
}

// leftovers are the paths that nobody needs: staging directories of no running build, and, where it can be known which
// images VMs stand on, images that neither a VM nor a record names. The recorded images are returned with them.
func (l *Library) leftovers(ctx context.Context) (left []string, images []vm.Image, err error) {
	// The directory is read before the records: a build that ends meanwhile is in both.
	names, err := l.idle()
	if err != nil {
		return nil, nil, fmt.Errorf("reconcile images: %w", err)
	}
	if images, err = l.cfg.Records.Images(ctx); err != nil {
		return nil, nil, fmt.Errorf("reconcile images: %w", err)
	}
	keep := map[string]bool{} // names in the directory
	for _, i := range images {
		keep[filepath.Base(l.dir(i.Digest))] = true
	}
	complete := l.cfg.Pinned != nil
	if complete {
		var pinned []string
		if pinned, err = l.cfg.Pinned(ctx); err != nil {
			complete = false
			err = fmt.Errorf("reconcile images: find the images of VMs: %w", err)
		}
		for _, digest := range pinned {
			keep[filepath.Base(l.dir(digest))] = true
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, stagePrefix) || complete && digestDir.MatchString(name) && !keep[name] {
			left = append(left, filepath.Join(l.cfg.Dir, name))
		}
	}
	return left, images, err
}

// idle lists what lies in the directory and belongs to no running build.
func (l *Library) idle() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !l.busy[e.Name()] {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
