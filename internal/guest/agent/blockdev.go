package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceWait bounds the wait for a disk or port. A guest on a starved host under emulation takes seconds to find its
// disks; one that has not after this long has none.
const deviceWait = 60 * time.Second

// waitDisk returns the device node of the disk that want ("serial:NAME" or "dev:NAME") names, when it can be opened.
func waitDisk(u *uevents, want string) (string, error) {
	var node string
	err := u.await(deviceWait, "disk "+want, func() (ready bool, err error) {
		node, ready, err = diskNode("/sys/block", "/dev", want)
		return ready, err
	})
	return node, err
}

// diskNode looks for the disk that want names, and opens its node in dev. The kernel makes the sysfs entry, then the
// node, which for a moment leads nowhere (ENXIO), and then the disk behind it; the uevent comes last of all.
func diskNode(sysBlock, dev, want string) (node string, ready bool, err error) {
	name, ok := findDisk(sysBlock, want)
	if !ok {
		return "", false, nil
	}
	node = path.Join(dev, name)
	f, err := os.Open(node)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENXIO):
		return node, false, nil
	case err != nil:
		return node, false, err
	}
	return node, true, f.Close()
}

// findDisk looks want up below sysBlock.
func findDisk(sysBlock, want string) (name string, ok bool) {
	kind, key, _ := strings.Cut(want, ":")
	if kind == "dev" {
		_, err := os.Stat(path.Join(sysBlock, key))
		return key, err == nil
	}
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		serial, err := os.ReadFile(path.Join(sysBlock, e.Name(), "serial"))
		if err == nil && strings.TrimSpace(string(serial)) == key {
			return e.Name(), true
		}
	}
	return "", false
}

// ioctlResizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h: _IOW('f', 16, __u64), the new size in blocks.
const ioctlResizeFS = 0x40086610

// growExt4 resizes the file system of node, mounted on target, when its device has grown by at least a mebibyte. It
// opens both before it returns, and does the rest (some 200 ms under emulation) beside the boot; grown is closed when it
// has. A failure is only said: the guest is whole without the space.
func growExt4(node, target string) (grown <-chan struct{}) {
	done := make(chan struct{})
	dev, err := os.Open(node)
	if err != nil {
		say("grow %s: %v", node, err)
		close(done)
		return done
	}
	dir, err := os.Open(target)
	if err != nil {
		say("grow %s: %v", node, errors.Join(err, dev.Close()))
		close(done)
		return done
	}
	go func() {
		defer close(done)
		if err := errors.Join(resizeExt4(dev, dir), dev.Close(), dir.Close()); err != nil {
			say("grow %s: %v", node, err)
		}
	}()
	return done
}

func resizeExt4(dev, mounted *os.File) error {
	var super [1024]byte
	if _, err := dev.ReadAt(super[:], 1024); err != nil {
		return fmt.Errorf("read superblock: %w", err)
	}
	blocks, blockSize, err := parseSuper(super[:])
	if err != nil {
		return err
	}
	size, err := dev.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	want := uint64(size) / blockSize
	if want <= blocks+(1<<20)/blockSize {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, mounted.Fd(), ioctlResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("from %d to %d blocks: %w", blocks, want, errno)
	}
	return nil
}

// parseSuper reads the size in blocks and the block size in bytes from an ext4 superblock (kernel documentation,
// filesystems/ext4/super).
func parseSuper(b []byte) (blocks, blockSize uint64, err error) {
	if len(b) < 0x154 || binary.LittleEndian.Uint16(b[0x38:]) != 0xEF53 {
		return 0, 0, errors.New("no ext4 superblock")
	}
	const incompat64bit = 0x80
	blocks = uint64(binary.LittleEndian.Uint32(b[0x4:]))
	if binary.LittleEndian.Uint32(b[0x60:])&incompat64bit != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(b[0x150:])) << 32
	}
	shift := binary.LittleEndian.Uint32(b[0x18:])
	if shift > 6 {
		return 0, 0, fmt.Errorf("ext4 superblock has block size 2^%d", 10+shift)
	}
	return blocks, 1024 << shift, nil
}
