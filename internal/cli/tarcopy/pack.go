package tarcopy

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Options of both directions.
type Options struct {
	Owner  bool              // keep numeric owners, set-id bits and extended attributes; else root's, or the caller's
	Follow bool              // pack what the source points to when it is a symbolic link
	Warn   func(path string) // told of each socket and device that is left out; may be nil
}

// Pack writes src, a file or a directory with all below it, as a tar stream whose top entry is called name. With
// Contents, the directory itself has no entry. Links are kept, but see Options.Follow.
func Pack(ctx context.Context, w io.Writer, src, name string, o Options) error {
	if o.Follow || name == Contents {
		real, err := filepath.EvalSymlinks(src)
		if err != nil {
			return err
		}
		src = real
	}
	p := packer{Options: o, tar: tar.NewWriter(w), names: map[inode]string{}}
	err := filepath.WalkDir(src, func(file string, d fs.DirEntry, err error) error {
		gone := func(err error) bool { return errors.Is(err, fs.ErrNotExist) && file != src } // removed meanwhile
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rel, err := filepath.Rel(src, file)
		if err != nil {
			return err
		}
		if name == Contents && rel == "." {
			return nil
		}
		if err := p.one(file, path.Join(name, filepath.ToSlash(rel))); !gone(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.tar.Close()
}

type packer struct {
	Options
	tar   *tar.Writer
	names map[inode]string // of what has several: the first, as in the stream
}

type inode struct{ dev, ino uint64 }

func (p *packer) one(file, name string) error {
	fi, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0 {
		if p.Warn != nil {
			p.Warn(file)
		}
		return nil
	}
	var link string
	if fi.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	if !fi.Mode().IsRegular() && (link != "" || !p.Owner) {
		h, err := p.header(fi, name, link)
		if err != nil {
			return err
		}
		return p.tar.WriteHeader(h)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err = f.Stat(); err != nil { // of the file that is open, whatever the name means by now
		return err
	}
	h, err := p.header(fi, name, "")
	if err != nil {
		return err
	}
	if p.Owner {
		if h.PAXRecords, err = xattrs(f); err != nil {
			return err
		}
	}
	if fi.IsDir() || p.sentBefore(fi, h) {
		return p.tar.WriteHeader(h)
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(p.tar, f, h.Size); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was copied", file)
	} else if err != nil {
		return err
	}
	return nil
}

// sentBefore makes h a link to the name by which the same file is in the stream already, if it is.
func (p *packer) sentBefore(fi fs.FileInfo, h *tar.Header) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return false
	}
	id := inode{st.Dev, st.Ino}
	first, sent := p.names[id]
	if !sent {
		p.names[id] = h.Name
		return false
	}
	h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	return true
}

func (o Options) header(fi fs.FileInfo, name, link string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(nameless{fi}, link)
	if err != nil {
		return nil, err
	}
	if h.Name = name; fi.IsDir() {
		h.Name += "/"
	}
	if !o.Owner {
		disown(h)
	}
	return h, nil
}

// disown gives an entry to root, without set-id bits: what a user may do with his own file would be root's in the guest.
// Extended attributes go for the same reason, and since files that are packed here have none then.
func disown(h *tar.Header) {
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.Mode &^= setID
	maps.DeleteFunc(h.PAXRecords, func(key, _ string) bool { return strings.HasPrefix(key, xattrPrefix) })
	h.Xattrs = nil //nolint:staticcheck // deprecated, but what is read has the attributes here too, and they would be written
}

// setID are the set-user-id and set-group-id bits of a header's mode.
const setID = 0o6000

// nameless keeps package tar from looking up users and groups: numbers are what counts in a guest.
type nameless struct{ fs.FileInfo }

func (nameless) Uname() (string, error) { return "", nil }
func (nameless) Gname() (string, error) { return "", nil }

// Disown copies a tar stream and gives every entry to root, without set-id bits and extended attributes.
func Disown(w io.Writer, r io.Reader) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return fmt.Errorf("read the tar stream: %w", err)
		}
		disown(h)
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write the tar stream: %w", err)
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return fmt.Errorf("copy the tar stream: %w", err)
		}
	}
}
