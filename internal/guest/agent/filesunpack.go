package agent

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/sparse"
	"banger/internal/vm"
)

// unpack writes a tar stream below dir, with the modes, numeric owners and extended attributes of its entries. Nothing
// is written outside dir: not by absolute names, "..", or symbolic links, be they from the stream or there before. Where a
// directory of the stream meets a link to one inside dir, the link stays and is followed.
// Each file appears whole or not at all; after an error those that came before it stay. Directories that are there
// already keep their attributes. Its memory grows only with the number of directories made.
func unpack(ctx context.Context, dir string, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	u := unpacker{root: root, in: newDestination(dir, root)}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, _ = io.Copy(io.Discard, r) // padding; the connection may then be used again
			return u.finish()
		}
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return vm.Errorf(vm.CodeInvalid, "read the tar stream: %w", err)
		}
		if err := u.entry(h, in); err != nil {
			return err
		}
	}
}

// answerEarly prepares for an error while the client still sends: many clients do not look for an answer before they
// are done, and take a connection that closes on them for the error. What is under way is thrown away for a while.
func answerEarly(w http.ResponseWriter, r *http.Request) {
	const patience = 5 * time.Second
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, r.Body)
}

type unpacker struct {
	root *os.Root
	in   *destination
	made []madeDir
}

// madeDir is a directory whose mode and time are set last: it may be read-only, and its time changes with each entry.
type madeDir struct {
	name string
	mode fs.FileMode
	time time.Time
}

// entryName checks a name from a stream and brings it into the form that package os wants.
func entryName(name string) (string, error) {
	if path.IsAbs(name) || slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsRune(name, 0) || name == "" {
		return "", vm.Errorf(vm.CodeInvalid, "the tar stream holds %q, which is not below the directory", name)
	}
	return path.Clean(name), nil
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment, as git archive writes
	}
	name, err := entryName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag == tar.TypeDir {
			return nil // dir itself
		}
		return vm.Errorf(vm.CodeInvalid, "the tar stream replaces the directory by something else")
	}
	name = u.in.place(name)
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		defer u.in.forget()
	}
	err = u.make(h, name, body)
	if errors.Is(err, fs.ErrNotExist) && path.Dir(name) != "." && h.Typeflag != tar.TypeLink {
		// Streams need not hold the directories of their files.
		if merr := u.root.MkdirAll(path.Dir(name), 0o755); merr == nil {
			err = u.make(h, name, body)
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path.Join(u.root.Name(), name), err)
	}
	return nil
}

// make makes one entry. With fs.ErrNotExist nothing of body was read.
func (u *unpacker) make(h *tar.Header, name string, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return u.publish(name, func(temp string) error { return u.file(h, temp, body) })
	case tar.TypeDir:
		return u.dir(h, name)
	case tar.TypeSymlink:
		return u.publish(name, func(temp string) error {
			if err := u.root.Symlink(h.Linkname, temp); err != nil {
				return err
			}
			return u.root.Lchown(temp, h.Uid, h.Gid)
		})
	case tar.TypeLink:
		target, err := entryName(h.Linkname)
		if err != nil {
			return err
		}
		target = u.in.place(target)
		if _, err := u.root.Lstat(target); err != nil {
			return vm.Errorf(vm.CodeInvalid, "link to %s: %w", target, err)
		}
		return u.publish(name, func(temp string) error { return u.link(h, target, temp) })
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return u.publish(name, func(temp string) error { return u.node(h, temp) })
	}
	return vm.Errorf(vm.CodeInvalid, "the tar stream holds an entry of unknown type %q", h.Typeflag)
}

// publish has an entry made under another name and moves it to its place, over a file that lies there.
func (u *unpacker) publish(name string, create func(temp string) error) error {
	temp := path.Join(path.Dir(name), ".banger-"+rand.Text())
	err := create(temp)
	if err == nil {
		err = u.root.Rename(temp, name)
	}
	// Also after success: between two names of one file, rename does nothing.
	if rerr := u.root.Remove(temp); err == nil && rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	return err
}

func (u *unpacker) file(h *tar.Header, temp string, body io.Reader) error {
	f, err := u.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = sparse.Copy(f, body)
	if err == nil {
		err = setAttributes(f, h)
	}
	if err == nil {
		err = f.Chmod(modeOf(h))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return u.root.Chtimes(temp, h.ModTime, h.ModTime)
}

// link gives a file another name, or where that lies on another disk, such as the work disk, makes a copy of it.
func (u *unpacker) link(h *tar.Header, target, temp string) error {
	err := u.root.Link(target, temp)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	fi, serr := u.root.Lstat(target)
	if serr != nil || !fi.Mode().IsRegular() {
		return errors.Join(err, serr)
	}
	f, oerr := u.root.Open(target)
	if oerr != nil {
		return errors.Join(err, oerr)
	}
	defer func() { _ = f.Close() }()
	return u.file(h, temp, f)
}

func (u *unpacker) dir(h *tar.Header, name string) error {
	err := u.root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if fi, serr := u.root.Stat(u.in.follow(name)); serr == nil && fi.IsDir() {
			return nil
		}
	}
	if err != nil {
		return err
	}
	d, err := u.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	u.made = append(u.made, madeDir{name, modeOf(h), h.ModTime})
	return setAttributes(d, h)
}

func (u *unpacker) node(h *tar.Header, temp string) error {
	parent, err := u.root.Open(path.Dir(temp))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if err := unix.Mknodat(int(parent.Fd()), path.Base(temp), mode, int(dev)); err != nil {
		return err
	}
	if err := u.root.Lchown(temp, h.Uid, h.Gid); err != nil {
		return err
	}
	return u.root.Chmod(temp, modeOf(h)) // the umask took from it
}

// setAttributes sets owner and extended attributes, in this order: a change of owner clears capabilities. The mode has
// to follow, since it loses its set-id bits likewise.
func setAttributes(f *os.File, h *tar.Header) error {
	if err := f.Chown(h.Uid, h.Gid); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if err := ignoreUnsupported(unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", name, err)
		}
	}
	return nil
}

func modeOf(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}

// finish sets what had to wait, the deepest directories first.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.made) {
		if err := u.root.Chmod(d.name, d.mode); err != nil {
			return err
		}
		if err := u.root.Chtimes(d.name, d.time, d.time); err != nil {
			return err
		}
	}
	return nil
}
