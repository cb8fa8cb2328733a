package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"banger/internal/compressed"
	"banger/internal/host/ext4"
	"banger/internal/qcow2"
	"banger/internal/vm"
)

// kind is what a file is, by its content.
type kind string

const (
	kindTar   kind = "tar"
	kindExt4  kind = "ext4"
	kindQcow2 kind = "qcow2"
)

const takes = "an image is imported from a tar of a root file system, such as docker export writes (also .gz, .xz, .zst), from an ext4 file system, or from a qcow2 disk of one"

// identify says what the file at path is, and refuses what no image can be made from (vm.CodeInvalid), with what can be known of
// that before anything is made.
func identify(path string) (kind, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", vm.Errorf(vm.CodeNotFound, "%w", err)
	}
	if err != nil {
		return "", vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case st.IsDir():
		return "", vm.Errorf(vm.CodeInvalid, "it is a directory").WithHint("make a tar of it: tar --numeric-owner -C DIR -cf FILE .")
	case !st.Mode().IsRegular():
		return "", vm.Errorf(vm.CodeInvalid, "it is no file").WithHint("%s", takes)
	}
	head := make([]byte, 4096)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	switch {
	case n == 0:
		return "", vm.Errorf(vm.CodeInvalid, "it is empty").WithHint("%s", takes)
	case isTar(head):
		return kindTar, checkTar(f)
	case compressed.Is(head):
		return kindTar, checkCompressed(io.NewSectionReader(f, 0, st.Size()))
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return kindQcow2, checkQcow2(f)
	}
	return kindExt4, checkDisk(f, st.Size())
}

// isTar says whether head is the beginning of a tar: its first header has a right checksum.
func isTar(head []byte) bool {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

// checkTar reads the headers of a tar, which takes no time where it can seek.
func checkTar(f *os.File) error {
	var tops []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return checkTops(tops)
		}
		if err != nil {
			return vm.Errorf(vm.CodeInvalid, "the tar is damaged or cut off: %w", err)
		}
		if top := topOf(h.Name); top != "" && !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
}

func topOf(name string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+name), "/"), "/")
	return top
}

// checkTops refuses a tree that holds no root file system, by the names in its root.
func checkTops(tops []string) error {
	for _, top := range []string{"bin", "sbin", "usr", "etc"} {
		if slices.Contains(tops, top) {
			return nil
		}
	}
	if slices.Contains(tops, "manifest.json") || slices.Contains(tops, "oci-layout") {
		return vm.Errorf(vm.CodeInvalid, "it is an archive of image layers, as docker save writes them").
			WithHint("docker export of a container writes its root file system: docker export $(docker create IMAGE) > FILE")
	}
	few := tops[:min(len(tops), 5)]
	return vm.Errorf(vm.CodeInvalid, "it holds no root file system: there is no bin, sbin, usr or etc at its top, but %q", few).
		WithHint("the tar has to begin at the root: tar --numeric-owner -C DIR -cf FILE .")
}

func checkCompressed(r io.Reader) error {
	d, err := compressed.NewReader(r)
	if err != nil {
		return vm.Errorf(vm.CodeInvalid, "what is compressed cannot be read: %w", err)
	}
	defer func() { _ = d.Close() }()
	head := make([]byte, 4096)
	n, err := io.ReadFull(d, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return vm.Errorf(vm.CodeInvalid, "what is compressed cannot be read: %w", err)
	}
	if !isTar(head[:n]) {
		return vm.Errorf(vm.CodeInvalid, "what is compressed in it is no tar").WithHint("decompress a disk first; %s", takes)
	}
	return nil
}

func checkQcow2(f *os.File) error {
	i, err := qcow2.Open(f)
	if err != nil {
		return vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	if i.Backing != "" {
		return vm.Errorf(vm.CodeInvalid, "it stands on another file, %s", i.Backing).WithHint("make one that stands alone: qemu-img convert -O qcow2 FILE NEW")
	}
	return checkDisk(i, i.Size)
}

// checkDisk refuses a disk of size bytes that is no file system, or not all of one.
func checkDisk(r io.ReaderAt, size int64) error {
	fs, err := ext4.Inspect(r)
	switch {
	case errors.Is(err, ext4.ErrNone) && partitioned(r):
		return vm.Errorf(vm.CodeInvalid, "it is a whole disk with partitions").
			WithHint("import the partition that has the root file system: losetup -Pf --show FILE names it, as /dev/loopNpM, and dd copies it")
	case errors.Is(err, ext4.ErrNone):
		return vm.Errorf(vm.CodeInvalid, "it is of no kind that is known").WithHint("%s", takes)
	case err != nil:
		return vm.Errorf(vm.CodeInvalid, "%w", err)
	case fs > size:
		return vm.Errorf(vm.CodeInvalid, "it is cut off: it has %d bytes, its file system %d", size, fs)
	case size > ext4.MaxSize:
		return vm.Errorf(vm.CodeInvalid, "it has %d bytes, more than the most, 16 TiB", size)
	}
	return nil
}

// partitioned says whether a disk begins with a table of partitions: GPT's header, or an MBR's mark with a partition in it.
func partitioned(r io.ReaderAt) bool {
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, 0); err != nil {
		return false
	}
	if bytes.HasPrefix(b[512:], []byte("EFI PART")) {
		return true
	}
	if binary.LittleEndian.Uint16(b[510:]) != 0xaa55 {
		return false
	}
	for at := 446; at < 510; at += 16 {
		if b[at+4] != 0 { // its type
			return true
		}
	}
	return false
}

// nameFor is the name of an image that was given none: after its file.
func nameFor(source string) string {
	name := path.Base(source)
	for cut := true; cut; {
		cut = false
		for _, end := range []string{".gz", ".xz", ".zst", ".bz2", ".lz4", ".tgz", ".txz", ".tar", ".ext4", ".img", ".raw", ".qcow2"} {
			if short, ok := strings.CutSuffix(name, end); ok {
				name, cut = short, true
			}
		}
	}
	return name
}

// kindError says of what is no tar, or none to the end, that this is so.
func kindError(err error) error {
	if vm.CodeOf(err) != vm.CodeInternal {
		return err
	}
	return vm.Errorf(vm.CodeInvalid, "it is damaged, or cut off: %w", err)
}

// describe is an image's source, for people.
func describe(k kind, source string) string { return fmt.Sprintf("%s %s", k, path.Base(source)) }
