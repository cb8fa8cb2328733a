package agent

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// home is where the work disk goes.
	home = "/root"
	// workStage is where it is mounted until it is as the image's home: nobody works in a half-seeded one.
	workStage = "/run/banger-work"
	// seedMark is the extended attribute of the work disk's top that tells how far its seeding is. It is no file, so that a
	// user who empties the directory does not remove it.
	seedMark = markPrefix + "seed"
)

const (
	seedBegun = "begun"
	seedDone  = "done"
)

// mountWork mounts the work disk at /root. A new one (nothing in it but lost+found) is seeded with what the image has
// there, so that .bashrc and .profile are not lost below the mount.
func mountWork(node string) error {
	for dir, mode := range map[string]os.FileMode{home: 0o700, workStage: 0o700} {
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make mount point for the work disk: %w", err)
		}
	}
	if err := unix.Mount(node, workStage, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", node, workStage, err)
	}
	_ = growExt4(node, workStage) // nobody waits for it
	if err := seed(context.Background(), home, workStage, seedMark); err != nil {
		return fmt.Errorf("seed the work disk with the image's %s: %w", home, err)
	}
	if err := unix.Mount(workStage, home, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the work disk to %s: %w", home, err)
	}
	_ = os.Remove(workStage)
	return nil
}

// seed makes a new disk a copy of image, the top's attributes included, once: what was begun and cut off is begun anew, and
// what is done is never done again. mark is the attribute that remembers.
func seed(ctx context.Context, image, disk, mark string) error {
	state, err := getMark(disk, mark)
	if err != nil || state == seedDone {
		return err
	}
	entries, err := os.ReadDir(disk)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lost+found" {
			continue
		}
		if state != seedBegun { // of a user, under an agent that did not mark
			return setMark(disk, mark, seedDone)
		}
		if err := os.RemoveAll(filepath.Join(disk, e.Name())); err != nil {
			return err
		}
	}
	if err := setMark(disk, mark, seedBegun); err != nil {
		return err
	}
	// The mark must not reach the disk before the files' content. ext4 sees to that where blocks are part of a file from
	// their allocation on; its default makes them so in a later transaction. It stays so for this boot: another remount
	// would wait for the disk.
	strict := unix.Mount("", disk, "", unix.MS_REMOUNT, "dioread_lock") == nil
	ordered, err := copyTree(ctx, image, disk)
	if err == nil && (!strict || !ordered) {
		err = syncFS(disk)
	}
	if err != nil {
		return err
	}
	return setMark(disk, mark, seedDone)
}

// copyTree copies from, with everything a tar stream holds, to the directory to. ordered is as of copyPlain.
func copyTree(ctx context.Context, from, to string) (ordered bool, err error) {
	simple, err := plain(from)
	if err != nil {
		return false, err
	}
	if simple {
		ordered, err = copyPlain(from, to)
	} else {
		err = copyAny(ctx, from, to)
	}
	if err != nil {
		return false, err
	}
	return ordered, copyTop(from, to)
}

// copyAny copies what is in from, as a tar stream does.
func copyAny(ctx context.Context, from, to string) error {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError((&packer{top: from, as: "."}).pack(ctx, w)) }()
	err := unpack(ctx, to, r)
	_ = r.CloseWithError(err) // ends the packer, where it has not
	return err
}

// copyTop has a directory be like another in all but what is in it.
func copyTop(from, to string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(nameless{fi}, "")
	if err != nil {
		return err
	}
	if h.PAXRecords, err = xattrs(from); err != nil {
		return err
	}
	top, err := os.Open(to)
	if err != nil {
		return err
	}
	defer func() { _ = top.Close() }()
	if err := errors.Join(setAttributes(top, h), top.Chmod(modeOf(h))); err != nil {
		return err
	}
	return os.Chtimes(to, h.ModTime, h.ModTime)
}

func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}

// getMark is empty where there is none.
func getMark(dir, mark string) (string, error) {
	value := make([]byte, 64)
	n, err := unix.Getxattr(dir, mark, value)
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	if err != nil {
		return "", ignoreUnsupported(err)
	}
	return string(value[:n]), nil
}

func setMark(dir, mark, value string) error {
	return ignoreUnsupported(os.NewSyscallError("setxattr", unix.Setxattr(dir, mark, []byte(value), 0)))
}
