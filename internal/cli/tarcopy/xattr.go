package tarcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrPrefix is how GNU tar, libarchive and our guests name extended attributes in PAX records.
const xattrPrefix = "SCHILY.xattr."

// carried says which attributes go along with -a: those of users, and capabilities, which are as good as the set-id bits that
// do. Others (labels of security modules, "trusted.") mean something to the machine that they are on alone.
func carried(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability"
}

// xattrs reads a file's attributes as PAX records, nil when there are none.
func xattrs(f *os.File) (map[string]string, error) {
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if size <= 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, fmt.Errorf("list extended attributes of %s: %w", f.Name(), err)
	}
	var records map[string]string
	for _, name := range strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's bound
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s of %s: %w", name, f.Name(), err)
		}
		if records == nil {
			records = map[string]string{}
		}
		records[xattrPrefix+name] = string(value[:n])
	}
	return records, nil
}

// mark gives what was just made the attributes of its header. A file system without any is forgiven.
func (u *unpacker) mark(h *tar.Header, name string) error {
	if !u.Owner {
		return nil
	}
	attrs := map[string]string{}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, xattrPrefix); ok && carried(attr) {
			attrs[attr] = value
		}
	}
	if len(attrs) == 0 {
		return nil
	}
	f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for attr, value := range attrs {
		err := unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &fs.PathError{Op: "set extended attribute " + attr + " of", Path: name, Err: err}
		}
	}
	return nil
}
