package tarcopy

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"banger/internal/sparse"
)

// Unpack writes a tar stream below t.Dir, the stream's top entry under t.Name. A file appears whole or not at all. The
// caller owns what is made, and set-id bits are dropped, unless Options.Owner. Sockets and devices are left out.
//
// The stream is a guest's. Where its top entry is a directory, all else is made through an os.Root at that directory: no
// link, be it from the stream or the user's, leads an entry out of it. Where it is none, nothing may follow.
func Unpack(r io.Reader, t Target, o Options) error {
	dir, err := os.OpenRoot(t.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	tr := tar.NewReader(r)
	h, err := next(tr)
	if errors.Is(err, io.EOF) {
		return errors.New("the tar stream is empty")
	}
	if err != nil {
		return err
	}
	u := &unpacker{root: dir, Options: o}
	if h.Typeflag != tar.TypeDir {
		return u.alone(h, t.Name, tr)
	}
	if t.Name != Contents { // else the directory that the contents go into is the user's own
		top, made, err := openTop(dir, t.Name)
		if err != nil {
			return err
		}
		defer top.Close()
		if u.root = top; made {
			if err := errors.Join(u.mark(h, "."), u.later(h, ".")); err != nil {
				return err
			}
		}
	}
	return u.below(path.Clean(h.Name), tr)
}

// maxName bounds the name of an entry; the kernel's own bound on a path (PATH_MAX).
const maxName = 4096

// next returns the next header, unless what it asks for comes from no guest agent of ours.
func next(tr *tar.Reader) (*tar.Header, error) {
	h, err := tr.Next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the tar stream: %w", err)
	}
	if len(h.Name) > maxName || len(h.Linkname) > maxName {
		return nil, fmt.Errorf("the tar stream holds a name longer than %d bytes", maxName)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes of it can stand for more than any disk holds
			return nil, fmt.Errorf("the tar stream holds %q as a sparse file", h.Name)
		}
	}
	return h, nil
}

// openTop makes the directory that the stream's top entry becomes, or takes one that is there.
func openTop(dir *os.Root, name string) (top *os.Root, made bool, err error) {
	err = dir.Mkdir(name, 0o700)
	if made = err == nil; errors.Is(err, fs.ErrExist) {
		if fi, serr := dir.Stat(name); serr == nil && fi.IsDir() {
			err = nil // merged into; its mode stays the user's
		}
	}
	if err != nil {
		return nil, false, err
	}
	top, err = dir.OpenRoot(name)
	return top, made, err
}

// alone takes a stream of one entry that is no directory.
func (u *unpacker) alone(h *tar.Header, name string, tr *tar.Reader) error {
	if name == Contents || h.Typeflag == tar.TypeLink { // a link to itself, or to what is not the guest's
		return fmt.Errorf("the tar stream begins with %q, which is no directory", h.Name)
	}
	if err := u.one(h, name, tr); err != nil {
		return err
	}
	more, err := next(tr)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the tar stream holds %q, but %q is no directory", more.Name, h.Name)
}

// below takes the entries below the stream's top directory.
func (u *unpacker) below(top string, tr *tar.Reader) error {
	for {
		h, err := next(tr)
		if errors.Is(err, io.EOF) {
			return u.finishDirs()
		}
		if err != nil {
			return err
		}
		name, err := relative(h.Name, top)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, err = relative(h.Linkname, top); err != nil {
				return err
			}
		}
		if name == "." {
			if h.Typeflag != tar.TypeDir {
				return fmt.Errorf("the tar stream holds %q a second time", h.Name)
			}
			continue
		}
		if err := u.one(h, name, tr); err != nil {
			return err
		}
	}
}

// relative is the name of an entry as seen from the top directory, which itself is ".".
func relative(entry, top string) (string, error) {
	rest, ok := path.Clean(entry), true
	if top != "." {
		rest, ok = strings.CutPrefix(rest, top)
		ok = ok && (rest == "" || rest[0] == '/')
		rest = path.Clean("./" + rest)
	}
	// Not fs.ValidPath, which wants UTF-8: a name is bytes.
	if !ok || rest == ".." || strings.HasPrefix(rest, "../") || path.IsAbs(rest) {
		return "", fmt.Errorf("the tar stream holds %q, which is not below %q", entry, top)
	}
	return rest, nil
}

type unpacker struct {
	Options
	root *os.Root // outside of it nothing is made
	dirs []made
}

// made is a directory whose mode and time are set last: it may be read-only, and its time changes with each file.
type made struct {
	name string
	fi   fs.FileInfo // to know it again
	h    *tar.Header
}

func (u *unpacker) one(h *tar.Header, name string, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(h, name)
	case tar.TypeReg:
		return u.publish(name, func(temp string) error { return u.file(h, temp, r) })
	case tar.TypeSymlink:
		return u.publish(name, func(temp string) error {
			if err := u.root.Symlink(h.Linkname, temp); err != nil {
				return err
			}
			return u.own(h, temp)
		})
	case tar.TypeLink:
		return u.publish(name, func(temp string) error { return u.root.Link(h.Linkname, temp) })
	default:
		if u.Warn != nil {
			u.Warn(path.Join(u.root.Name(), name))
		}
		return nil
	}
}

func (u *unpacker) dir(h *tar.Header, name string) error {
	err := u.root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if fi, serr := u.root.Stat(name); serr == nil && fi.IsDir() {
			return nil // merged into; its mode stays the user's
		}
	}
	if err != nil {
		return err
	}
	if err := u.mark(h, name); err != nil {
		return err
	}
	return u.later(h, name)
}

// later notes a directory that was made.
func (u *unpacker) later(h *tar.Header, name string) error {
	fi, err := u.root.Lstat(name)
	if err != nil {
		return err
	}
	// Not h itself: a guest can hang a megabyte on each.
	u.dirs = append(u.dirs, made{name, fi, &tar.Header{Typeflag: h.Typeflag, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime}})
	return nil
}

// publish has an entry made under another name and moves it to its place, over what lies there.
func (u *unpacker) publish(name string, create func(temp string) error) error {
	temp := path.Join(path.Dir(name), ".banger-cp-"+rand.Text())
	err := create(temp)
	if err == nil {
		err = u.root.Rename(temp, name)
	}
	_ = u.root.Remove(temp) // is there still when something failed, or when both were names of one file: then nothing is renamed
	if err != nil {
		return fmt.Errorf("write %s: %w", path.Join(u.root.Name(), name), err)
	}
	return nil
}

// file is not synced: what a copy is worth after a power failure is the user's to decide, as with cp.
func (u *unpacker) file(h *tar.Header, temp string, r io.Reader) error {
	f, err := u.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = sparse.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return u.attributes(h, temp)
}

// attributes sets owner, mode and time, in this order: a change of owner clears set-id bits.
func (u *unpacker) attributes(h *tar.Header, name string) error {
	if err := u.own(h, name); err != nil {
		return err
	}
	if err := u.mark(h, name); err != nil { // a change of owner clears capabilities
		return err
	}
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	if !u.Owner {
		mode &= fs.ModePerm
	}
	if err := u.root.Chmod(name, mode); err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (u *unpacker) own(h *tar.Header, name string) error {
	if !u.Owner {
		return nil
	}
	return u.root.Lchown(name, h.Uid, h.Gid)
}

// finishDirs sets what was put off. A name that leads through a link of the stream's may by now mean another directory,
// which is the user's.
func (u *unpacker) finishDirs() error {
	for _, d := range slices.Backward(u.dirs) {
		fi, err := u.root.Lstat(d.name)
		if err != nil {
			return err
		}
		if !os.SameFile(fi, d.fi) {
			return fmt.Errorf("%s was replaced while the tar stream was unpacked", path.Join(u.root.Name(), d.name))
		}
		if err := u.attributes(d.h, d.name); err != nil {
			return err
		}
	}
	return nil
}
