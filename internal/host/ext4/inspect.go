package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrNone says that there is no file system of this family.
var ErrNone = errors.New("no ext2, ext3 or ext4 file system")

// The superblock, in Linux's fs/ext4/ext4.h: 1024 bytes from the beginning, little-endian.
const (
	superblock = 1024
	superMagic = 0xef53

	blocksAt, blocksHighAt = 0x04, 0x150
	blockSizeAt            = 0x18 // as a power of two, over 1 KiB
	magicAt                = 0x38
	incompatAt             = 0x60

	journalDevice = 0x8  // of incompat: it is the journal of another one
	wide          = 0x80 // block numbers have 64 bits
)

// Inspect returns how many bytes the file system at the beginning of r has. ErrNone when there is none; other errors say why
// it is not of use.
func Inspect(r io.ReaderAt) (size int64, err error) {
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, superblock); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if binary.LittleEndian.Uint16(b[magicAt:]) != superMagic {
		return 0, ErrNone
	}
	incompat := binary.LittleEndian.Uint32(b[incompatAt:])
	if incompat&journalDevice != 0 {
		return 0, errors.New("it is the journal of another file system")
	}
	blocks := uint64(binary.LittleEndian.Uint32(b[blocksAt:]))
	if incompat&wide != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(b[blocksHighAt:])) << 32
	}
	shift := 10 + binary.LittleEndian.Uint32(b[blockSizeAt:])
	if shift > 16 || blocks == 0 || blocks > MaxSize>>shift {
		return 0, fmt.Errorf("its file system is damaged: %d blocks of 2^%d bytes", blocks, shift)
	}
	return int64(blocks) << shift, nil
}

// SizeOf is Inspect for a file.
func SizeOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	return Inspect(f)
}
