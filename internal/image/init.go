package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"

	"banger/internal/host/ext4"
)

// ownInit is an image's own init system, where it has one.
const ownInit = "/sbin/init"

// ownInitOf finds an image's own init system, "" when it has none. has says whether the image has a file, link where a link
// leads to.
//
// Busybox calls itself so wherever it is installed. Where nothing tells it what to start, as in the images that containers are
// made of, it is none: it would start terminals that nobody has.
func ownInitOf(has func(name string) (bool, error), link func(name string) (string, error)) (string, error) {
	there, err := has(ownInit)
	if err != nil || !there {
		return "", err
	}
	to, err := link(ownInit)
	if err != nil || path.Base(to) != "busybox" {
		return ownInit, err
	}
	for _, starts := range []string{"/sbin/openrc", "/etc/init.d/rcS"} {
		if there, err := has(starts); err != nil || there {
			return ownInit, err
		}
	}
	return "", nil
}

// initOf is that of a tree.
func initOf(tree string) (string, error) {
	root, err := os.OpenRoot(tree) // links in the tree must not lead out of it
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	has := func(name string) (bool, error) {
		_, err := root.Lstat(name[1:])
		return err == nil, nil
	}
	return ownInitOf(has, func(name string) (string, error) {
		to, err := root.Readlink(name[1:])
		var none *fs.PathError
		if errors.As(err, &none) { // it is no link
			return "", nil
		}
		return to, err
	})
}

// initOn is that of a disk.
func initOn(ctx context.Context, disk string) (string, error) {
	return ownInitOf(
		func(name string) (bool, error) { return ext4.Has(ctx, disk, name) },
		func(name string) (string, error) { return ext4.Link(ctx, disk, name) },
	)
}
