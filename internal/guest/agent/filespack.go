package agent

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// xattrPrefix is how GNU tar, libarchive and containers name extended attributes in PAX records.
const xattrPrefix = "SCHILY.xattr."

// markPrefix is that of the attributes with which we mark a guest's own disks. They mean nothing anywhere else.
const markPrefix = "trusted.banger."

// packer writes one path, a file or a directory with all below it, as a tar stream. Its memory grows only with the
// number of files that have several names.
type packer struct {
	top    string // clean, absolute
	follow bool   // the top, when it is a symbolic link
	as     string // the top's name in the stream; empty = its own

	out   *tar.Writer
	names map[inode]string // of what has several: the first, as in the stream
}

type inode struct{ dev, ino uint64 }

func (p *packer) pack(ctx context.Context, w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10) // small files, several to a packet
	p.out = tar.NewWriter(buffered)
	p.names = map[inode]string{}
	from := p.top
	if p.follow {
		real, err := filepath.EvalSymlinks(p.top)
		if err != nil {
			return err
		}
		from = real
	}
	base := p.as
	if base == "" {
		base = path.Base(p.top)
	}
	if base == "/" {
		base = "."
	}
	dev := uint64(0)
	err := filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && file != from {
				return nil // removed meanwhile
			}
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d.IsDir() {
			if dev, err = checkMount(file, dev); err != nil {
				return err
			}
		}
		name := path.Join(base, strings.TrimPrefix(file, from))
		err = p.one(file, name)
		if errors.Is(err, fs.ErrNotExist) && file != from {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(p.out.Close(), buffered.Flush())
}

// checkMount returns the device of a directory, and fs.SkipDir for the kernel's own file systems below another one:
// nobody who copies / wants /proc. Disks mounted below are part of the tree.
func checkMount(dir string, parent uint64) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || parent == 0 || st.Dev == parent {
		return st.Dev, nil // what cannot be looked at is told by the walk
	}
	var vfs unix.Statfs_t
	if err := unix.Statfs(dir, &vfs); err != nil {
		return st.Dev, nil
	}
	if kernelsOwn(&vfs) {
		return parent, fs.SkipDir
	}
	return st.Dev, nil
}

func kernelsOwn(vfs *unix.Statfs_t) bool {
	switch vfs.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC:
		return true
	}
	return false
}

// one writes one entry. Sockets mean nothing elsewhere and are left out.
func (p *packer) one(file, name string) error {
	fi, err := os.Lstat(file)
	if err != nil {
		return err
	}
	switch mode := fi.Mode(); {
	case mode&fs.ModeSocket != 0:
		return nil
	case mode.IsRegular():
		return p.regular(file, name)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		return p.header(fi, file, name, target)
	}
	return p.header(fi, file, name, "")
}

func (p *packer) regular(file, name string) error {
	// Not to wait for a writer, should it have become a pipe meanwhile.
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat() // of the file that is open, whatever its name means by now
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no file any more", file)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if earlier, ok := p.names[id]; ok {
			return p.link(fi, name, earlier)
		}
		p.names[id] = name
	}
	content := io.Reader(f)
	var vfs unix.Statfs_t
	if err := unix.Statfs(file, &vfs); err == nil && kernelsOwn(&vfs) {
		_ = f.SetReadDeadline(time.Now().Add(madePatience)) // some tell only what happens next; most know no deadline, and need none
		b, err := readMade(f, file)
		if err != nil {
			return err
		}
		content, fi = bytes.NewReader(b), sized{fi, int64(len(b))}
	}
	if err := p.header(fi, file, name, ""); err != nil {
		return err
	}
	if _, err := io.CopyN(p.out, content, fi.Size()); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", file)
	} else if err != nil {
		return err
	}
	return nil
}

// maxMade bounds what is kept in memory of a file that the kernel makes as it is read.
const maxMade = 16 << 20

// madePatience is how long such a file may take to say something.
const madePatience = 5 * time.Second

// readMade reads a file that says nothing true of its size: one of /proc says 0, one of /sys a page.
func readMade(r io.Reader, file string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMade+1))
	if err == nil && len(b) > maxMade {
		err = vm.Errorf(vm.CodeInvalid, "%s is made by the kernel as it is read, and longer than %d MiB", file, maxMade>>20)
	}
	return b, err
}

// sized is a file with its true size.
type sized struct {
	fs.FileInfo
	size int64
}

func (s sized) Size() int64 { return s.size }

// link writes another name of a file that is in the stream.
func (p *packer) link(fi fs.FileInfo, name, earlier string) error {
	h, err := tar.FileInfoHeader(nameless{fi}, "")
	if err != nil {
		return err
	}
	h.Typeflag, h.Name, h.Linkname, h.Size = tar.TypeLink, name, earlier, 0
	return p.out.WriteHeader(h)
}

func (p *packer) header(fi fs.FileInfo, file, name, target string) error {
	h, err := tar.FileInfoHeader(nameless{fi}, target)
	if err != nil {
		return err
	}
	h.ModTime = h.ModTime.Truncate(time.Second) // package tar rounds: into the future, for a file just written
	if h.Name = name; fi.IsDir() {
		h.Name += "/"
	}
	if h.PAXRecords, err = xattrs(file); err != nil {
		return err
	}
	return p.out.WriteHeader(h)
}

// xattrs reads a file's extended attributes as PAX records, nil when there are none.
func xattrs(file string) (map[string]string, error) {
	size, err := unix.Llistxattr(file, nil)
	if size <= 0 || err != nil {
		return nil, ignoreUnsupported(err)
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(file, list); err != nil {
		return nil, fmt.Errorf("list extended attributes of %s: %w", file, err)
	}
	records := map[string]string{}
	for _, name := range strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if strings.HasPrefix(name, markPrefix) {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's bound
		n, err := unix.Lgetxattr(file, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s of %s: %w", name, file, err)
		}
		records[xattrPrefix+name] = string(value[:n])
	}
	return records, nil
}

// ignoreUnsupported forgives file systems without extended attributes.
func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// nameless keeps package tar from looking up users and groups: numbers are what counts.
type nameless struct{ fs.FileInfo }

func (nameless) Uname() (string, error) { return "", nil }
func (nameless) Gname() (string, error) { return "", nil }
