package dmsnap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The store is what Linux's dm-snap-persistent.c reads and writes, in chunks: one with the header, then areas of one chunk
// with 256 exceptions (16 bytes each: which chunk of the image, which of the store) and the 256 chunks they speak of. Chunks
// are handed out from the front, so that a store which is large enough has a tail that the kernel never touches: its last
// chunk is our stamp, which says what image the store belongs to. The kernel's header has no room for that.
const (
	sector       = 512
	chunkSectors = 8 // the page size: a guest's file system writes no less
	chunk        = chunkSectors * sector
	perArea      = chunk / 16

	storeMagic   = 0x70416e53 // "SnAp"
	storeVersion = 1
	validOffset  = 4

	stampMagic = "banger dm-snapshot store of\n"
	maxStamp   = chunk - len(stampMagic) - 12
)

// header is the kernel's, little-endian. All zeros: not used yet.
type header struct{ Magic, Valid, Version, ChunkSectors uint32 }

// storeSize is how large a store has to be for an image of size bytes, so that every chunk of it can be written and dm-snapshot
// still has room. The area after a full one is cleared before it is needed: one more is counted.
func storeSize(size int64) int64 {
	chunks := (size + chunk - 1) / chunk
	areas := chunks/perArea + 1
	const slack, stamp = 15, 1
	return (1 + areas + chunks + slack + stamp) * chunk
}

// stamp is what a store remembers of its image. The name is the last two elements of the image file's path: the directory is
// the image's digest, wherever it lies.
type stamp struct {
	image string
	size  int64 // of the image, in bytes
}

func stampOf(base string, size int64) stamp {
	return stamp{filepath.Join(filepath.Base(filepath.Dir(base)), filepath.Base(base)), size}
}

func (s stamp) bytes() ([]byte, error) {
	if len(s.image) > maxStamp {
		return nil, fmt.Errorf("name of image %q is too long", s.image)
	}
	b := append(make([]byte, 0, chunk), stampMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.image)))
	b = append(b, s.image...)
	return b[:chunk], nil
}

func parseStamp(b []byte) (stamp, error) {
	rest, ok := bytes.CutPrefix(b, []byte(stampMagic))
	if !ok || len(rest) < 12 {
		return stamp{}, errors.New("it has no stamp of ours")
	}
	size, n := int64(binary.LittleEndian.Uint64(rest)), int64(binary.LittleEndian.Uint32(rest[8:]))
	if rest = rest[12:]; size < 0 || n > int64(len(rest)) {
		return stamp{}, errors.New("its stamp is damaged")
	}
	return stamp{string(rest[:n]), size}, nil
}

// writeStore makes path, which is there and empty, an unused store. What the kernel writes first gets its blocks now: the
// header must be writable whatever becomes of the host's file system.
func writeStore(path string, s stamp) error {
	tail, err := s.bytes()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	size := storeSize(s.size)
	_, err = f.WriteAt(make([]byte, 2*chunk), 0)
	if err == nil {
		_, err = f.WriteAt(tail, size-chunk)
	}
	return errors.Join(err, f.Close())
}

// readStore says what is known of a store from its file; valid is what the kernel wrote down.
func readStore(path string) (s stamp, valid bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return stamp{}, false, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return stamp{}, false, err
	}
	return parseStore(f, st.Size())
}

func parseStore(r io.ReaderAt, size int64) (s stamp, valid bool, err error) {
	if size < 2*chunk || size%chunk != 0 {
		return stamp{}, false, fmt.Errorf("it has %d bytes", size)
	}
	tail := make([]byte, chunk)
	if _, err := r.ReadAt(tail, size-chunk); err != nil {
		return stamp{}, false, err
	}
	if s, err = parseStamp(tail); err != nil {
		return stamp{}, false, err
	}
	if s.size > size || storeSize(s.size) != size {
		return stamp{}, false, fmt.Errorf("it has %d bytes, for an image of %d bytes", size, s.size)
	}
	var h header
	if err := binary.Read(io.NewSectionReader(r, 0, 16), binary.LittleEndian, &h); err != nil {
		return stamp{}, false, err
	}
	switch {
	case h == header{}:
		return s, true, nil
	case h.Magic != storeMagic || h.Version != storeVersion || h.ChunkSectors != chunkSectors:
		return stamp{}, false, fmt.Errorf("its header is not what was written: %+v", h)
	}
	return s, h.Valid != 0, nil
}

// revive takes back the kernel's word that a store is not valid. The kernel gives it when a write to the store failed, and
// from then on writes nothing; what it had committed before is whole. It must distrust that where the image can change under
// the store, but ours never do.
func revive(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint32(nil, 1), validOffset)
	return errors.Join(err, f.Sync(), f.Close())
}
