package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Most images have a few files in their home, and a first start waits until they are copied. What packs and unpacks any
// tree takes several times as long for that, emulated: it is much code, run for the first time.

// plain says whether a tree holds nothing but directories, symlinks and files with one name, none with attributes.
func plain(tree string) (bool, error) {
	errNot := errors.New("not plain")
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR, unix.S_IFLNK:
		case unix.S_IFREG:
			if st.Nlink > 1 {
				return errNot
			}
		default:
			return errNot
		}
		if attributes, err := xattrs(path); err != nil || len(attributes) > 0 {
			return errors.Join(errNot, err)
		}
		return nil
	})
	if errors.Is(err, errNot) {
		return false, nil
	}
	return err == nil, err
}

// copyPlain copies what is in a plain tree into the directory to, where none of it is. ordered says that ext4 was told of
// each file to write its content before what is changed from now on (seed).
func copyPlain(from, to string) (ordered bool, err error) {
	type made struct {
		path string
		fi   fs.FileInfo
	}
	var all []made
	ordered = true
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		all = append(all, made{at, fi})
		switch {
		case fi.IsDir():
			return os.Mkdir(at, 0o700)
		case fi.Mode().Type() == fs.ModeSymlink:
			text, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(text, at)
		}
		allocated, err := copyFile(path, at)
		ordered = ordered && allocated
		return err
	})
	if err != nil {
		return false, err
	}
	for _, m := range slices.Backward(all) { // a directory's time changes with what is put into it
		if err := become(m.path, m.fi); err != nil {
			return false, err
		}
	}
	return ordered, nil
}

// become gives a file the owner, mode and time that fi tells of.
func become(path string, fi fs.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the system does not tell who owns " + path)
	}
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSymlink {
		if err := os.Chmod(path, fi.Mode()); err != nil { // after chown, which takes setuid away
			return err
		}
	}
	t := unix.NsecToTimespec(fi.ModTime().UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// ioctlAllocate is EXT4_IOC_ALLOC_DA_BLKS of Documentation/filesystems/ext4: _IO('f', 12). The blocks of what was written
// are allocated now, and ext4's ordered mode, under dioread_lock, writes them before it commits that, or anything later.
const ioctlAllocate = 0x660c

// copyFile copies the content of a file to a new one. allocated: the file system is one that was told to order it.
func copyFile(from, to string) (allocated bool, err error) {
	in, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		allocated = unix.IoctlSetInt(int(out.Fd()), ioctlAllocate, 0) == nil
	}
	return allocated, errors.Join(err, out.Close())
}
