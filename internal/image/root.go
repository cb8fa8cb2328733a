package image

import (
	"context"
	"io"
	"os"

	"banger/internal/act"
	"banger/internal/host/ext4"
)

const (
	rootSize  = 8 << 30 // bytes, sparse; what a VM can put on its root beside the image's own files
	rootLabel = "banger-root"
)

// asRoot puts a command into a user namespace where the daemon's user is root and its subordinate ids are everybody
// else, unless the daemon is root already. Only so can files be given their owners.
func asRoot(args ...string) []string {
	if os.Geteuid() == 0 {
		return args
	}
	return asUserRoot(args...)
}

func asUserRoot(args ...string) []string {
	return append([]string{"unshare", "--user", "--map-root-user", "--map-auto", "--"}, args...)
}

// unpack writes the tar stream into the directory tree with owners, modes, links, device nodes and extended attributes.
//
// The file system is made from a tree and not straight from the tar, because what does the latter without root
// (hcsshim's tar2ext4) leaves too few inodes for 8 GiB, no directory index and no checksums. It is off by default for
// an ordinary user to make device nodes: /dev is left empty then, which the guest covers with its own anyway.
func unpack(ctx context.Context, tar io.Reader, tree string) error {
	args := []string{
		"tar", "--extract", "--file=-", "--directory=" + tree, "--numeric-owner", "--same-owner", "--preserve-permissions",
		"--xattrs", "--xattrs-include=*", "--delay-directory-restore",
		// By this file programs, systemd among them, take a machine for a container of Docker's.
		"--anchored", "--exclude=./.dockerenv", "--exclude=.dockerenv",
	}
	if os.Geteuid() != 0 {
		args = append(args, "--exclude=./dev/*", "--exclude=dev/*")
	}
	return command{args: asRoot(args...), stdin: tar}.run(ctx)
}

// format makes the file root an ext4 file system with the content of tree.
func format(ctx context.Context, tree, root string) error {
	program, err := ext4.Program()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(root, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(rootSize)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return command{args: asRoot(append([]string{program}, ext4.Args(root, rootLabel, tree)...)...)}.run(ctx)
}

// remove deletes a staging directory, in which files can belong to ids that only the user namespace may touch.
func remove(ctx context.Context, stage string) error {
	return act.Do(ctx, "staging.remove", func() error {
		err := os.RemoveAll(stage)
		if err == nil || os.Geteuid() == 0 {
			return err
		}
		return command{args: asRoot("rm", "-rf", "--", stage)}.run(ctx)
	})
}
