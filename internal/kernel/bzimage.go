package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"banger/internal/compressed"
	"banger/internal/vm"
)

// Limits on what is read from outside, far above any real kernel.
const (
	maxVmlinux = 1 << 30
	maxModule  = 256 << 20
)

// payload is where the compressed kernel lies in a bzImage.
type payload struct {
	offset, length int64
}

// findPayload reads the setup header of a bzImage: Documentation/arch/x86/boot.rst of the kernel. head is at least the
// first 0x250 bytes; size is the whole file's.
func findPayload(head []byte, size int64) (payload, error) {
	if len(head) < 0x250 {
		return payload{}, errors.New("too short for a bzImage")
	}
	if string(head[0x202:0x206]) != "HdrS" || head[0x1fe] != 0x55 || head[0x1ff] != 0xaa {
		return payload{}, errors.New("neither an ELF file nor a bzImage")
	}
	if v := binary.LittleEndian.Uint16(head[0x206:]); v < 0x208 {
		return payload{}, fmt.Errorf("boot protocol %d.%02d, need at least 2.08", v>>8, v&0xff)
	}
	setup := int64(head[0x1f1])
	if setup == 0 {
		setup = 4 // as the boot protocol says
	}
	p := payload{
		offset: (setup+1)*512 + int64(binary.LittleEndian.Uint32(head[0x248:])),
		length: int64(binary.LittleEndian.Uint32(head[0x24c:])),
	}
	if p.length < 8 || p.offset+p.length > size {
		return payload{}, fmt.Errorf("payload of %d bytes at %d does not lie in its %d bytes", p.length, p.offset, size)
	}
	return p, nil
}

// extractVmlinux writes the uncompressed kernel of image (a bzImage, or already an ELF file) to w.
func extractVmlinux(w io.Writer, image io.ReaderAt, size int64) error {
	head := make([]byte, min(size, 0x250))
	if n, err := image.ReadAt(head, 0); n < len(head) {
		return fmt.Errorf("read kernel image: %w", noEOF(err))
	}
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		_, err := io.Copy(w, io.NewSectionReader(image, 0, size))
		return err
	}
	p, err := findPayload(head, size)
	if err != nil {
		return err
	}
	// The last four bytes tell the uncompressed size: gzip's own trailer, appended by the kernel's build to all other
	// formats. Reading just that much keeps a decompressor from taking them for a next frame.
	var tail [4]byte
	if n, err := image.ReadAt(tail[:], p.offset+p.length-4); n < len(tail) {
		return fmt.Errorf("read payload size: %w", noEOF(err))
	}
	full := int64(binary.LittleEndian.Uint32(tail[:]))
	if full > maxVmlinux {
		return fmt.Errorf("payload claims %d bytes uncompressed", full)
	}
	d, err := compressed.NewReader(io.NewSectionReader(image, p.offset, p.length))
	if err != nil {
		return fmt.Errorf("payload at %d: %w", p.offset, err)
	}
	defer func() { _ = d.Close() }()
	if _, err := io.CopyN(w, d, full); err != nil {
		return fmt.Errorf("decompress payload at %d: %w", p.offset, noEOF(err))
	}
	return nil
}

// notePVH is XEN_ELFNOTE_PHYS32_ENTRY, the entry point both QEMU's microvm and Firecracker start an ELF kernel at.
const notePVH = 18

// checkVmlinux refuses what no VMM of ours can boot.
func checkVmlinux(r io.ReaderAt) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("not an ELF file: %w", err)
	}
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return fmt.Errorf("for %v, need EM_X86_64", f.Machine)
	}
	loads := 0
	pvh := false
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			loads++
		case elf.PT_NOTE:
			if p.Filesz > 1<<20 {
				return fmt.Errorf("note segment of %d bytes", p.Filesz)
			}
			notes, err := io.ReadAll(p.Open())
			if err != nil {
				return fmt.Errorf("read notes: %w", err)
			}
			pvh = pvh || hasNote(notes, "Xen", notePVH)
		}
	}
	if loads == 0 {
		return errors.New("nothing to load in it")
	}
	if !pvh {
		return errors.New("has no PVH entry point (CONFIG_PVH)")
	}
	return nil
}

// hasNote looks for a note in a little-endian ELF note segment (elf(5)): three words (name size, description size,
// type), then both, each padded to four bytes.
func hasNote(notes []byte, name string, kind uint32) bool {
	pad := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(notes) >= 12 {
		nameSize, descSize := binary.LittleEndian.Uint32(notes), binary.LittleEndian.Uint32(notes[4:])
		t := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		if pad(nameSize)+pad(descSize) > uint64(len(notes)) {
			return false
		}
		if t == kind && string(bytes.TrimRight(notes[:nameSize], "\x00")) == name {
			return true
		}
		notes = notes[pad(nameSize)+pad(descSize):]
	}
	return false
}

// writeVmlinux makes the file dst out of the kernel image src, and refuses what cannot boot.
func writeVmlinux(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if st.Size() > maxVmlinux {
		return vm.Errorf(vm.CodeInvalid, "kernel image of %d bytes is too large", st.Size())
	}
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	if err := extractVmlinux(out, in, st.Size()); err != nil {
		return invalid("kernel image", err)
	}
	if err := checkVmlinux(out); err != nil {
		return invalid("vmlinux", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}
