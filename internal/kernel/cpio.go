package kernel

import (
	"fmt"
	"io"
)

// Modes of the entries, as in stat(2).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

// cpioWriter writes the "newc" format that the kernel unpacks as an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Owner and time of everything are 0, so that equal
// input gives equal bytes. The libraries at hand write no device numbers.
type cpioWriter struct {
	w   io.Writer
	ino uint32
	err error // the first; everything after it is skipped
}

func (c *cpioWriter) dir(name string) { c.entry(name, modeDir|0o755, 2, 0, 0, nil) }
func (c *cpioWriter) char(name string, maj, mi uint32) {
	c.entry(name, modeChar|0o600, 1, maj, mi, nil)
}
func (c *cpioWriter) file(name string, perm uint32, content []byte) {
	c.entry(name, modeFile|perm, 1, 0, 0, content)
}

// close writes the trailer and returns the first error.
func (c *cpioWriter) close() error {
	c.ino = 0
	c.entry("TRAILER!!!", 0, 1, 0, 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, nlink, major, minor uint32, content []byte) {
	if c.err == nil && uint64(len(content)) > 1<<32-1 {
		c.err = fmt.Errorf("cpio: %s has %d bytes, the format takes 4 GiB", name, len(content))
	}
	// magic, ino, mode, uid, gid, nlink, mtime, size, dev (major, minor), rdev (major, minor), name size, checksum
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.ino, mode, 0, 0, nlink, 0, len(content), 0, 0, major, minor, len(name)+1, 0) + name + "\x00"
	c.ino++
	c.write([]byte(head))
	c.pad(len(head))
	c.write(content)
	c.pad(len(content))
}

func (c *cpioWriter) pad(n int) { c.write(make([]byte, -n&3)) }

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
}
