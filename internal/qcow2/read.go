package qcow2

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Bits of header.Incompatible. A file with another one means something that is not understood here.
const (
	dirty      = 1 << 0 // its refcounts may be wrong: nothing that a reader needs
	compressed = 1 << 3 // there is a byte that says how clusters are compressed
)

const (
	oldVersion = 2
	oldHeader  = 72 // bytes of version 2, which ends before Incompatible

	minClusterBits, maxClusterBits = 9, 21
	maxSize                        = 1 << 62

	offsetMask = 0x00fffffffffffe00 // of a table's entry: where the next table, or the cluster, is
	zeroFlag   = 1                  // of an entry for a cluster: it reads as zeros
	packedFlag = 1 << 62            // it is compressed
)

// Image is an open file. What a file says of itself is not believed before it is looked at: it may come from anywhere.
type Image struct {
	Size    int64  // of the disk, in bytes
	Backing string // the file that it stands on, empty = none

	r       io.ReaderAt
	bits    uint32 // a cluster has 1 << bits bytes
	l1      []uint64
	l2      []uint64 // the table that was read last
	l2At    uint64
	zstd    bool
	version uint32
}

// Open reads a file's header and its first table. The error says why it cannot be read, or not by us.
func Open(r io.ReaderAt) (*Image, error) {
	h, packing, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	i := &Image{Size: int64(h.Size), r: r, bits: h.ClusterBits, zstd: packing == 1, version: h.Version}
	if h.BackingOffset != 0 {
		if h.BackingSize == 0 || h.BackingSize > maxBackingName || h.BackingOffset > 1<<h.ClusterBits {
			return nil, errors.New("qcow2 header is damaged: name of backing file")
		}
		name := make([]byte, h.BackingSize)
		if _, err := r.ReadAt(name, int64(h.BackingOffset)); err != nil {
			return nil, fmt.Errorf("read qcow2 header: %w", err)
		}
		i.Backing = string(name)
	}
	perL1 := uint64(1) << (2*h.ClusterBits - 3) // bytes that one entry maps
	need := (h.Size + perL1 - 1) / perL1
	if uint64(h.L1Size) < need || uint64(h.L1Size)*8 > maxL1 || h.L1Offset == 0 || h.L1Offset > 1<<62 {
		return nil, fmt.Errorf("qcow2 header is damaged: %d entries for a disk of %d bytes", h.L1Size, h.Size)
	}
	i.l1, err = table(r, h.L1Offset, need)
	return i, err
}

// readHeader reads what both versions have in common, and of the newer one what it has more. packing is how clusters are
// compressed: 0 deflate, 1 zstd.
func readHeader(r io.ReaderAt) (h header, packing byte, err error) {
	b := make([]byte, headerLength+1)
	n, err := r.ReadAt(b, 0)
	if n < oldHeader {
		return h, 0, fmt.Errorf("read qcow2 header: %w", err)
	}
	if err := binary.Read(bytes.NewReader(b[:headerLength]), binary.BigEndian, &h); err != nil {
		return h, 0, fmt.Errorf("read qcow2 header: %w", err)
	}
	if h.Version == oldVersion {
		h.Incompatible, h.HeaderLength = 0, oldHeader
	}
	switch {
	case h.Magic != magic:
		return h, 0, errors.New("no qcow2 file")
	case h.Version != oldVersion && h.Version != version:
		return h, 0, fmt.Errorf("qcow2 version %d, want 2 or 3", h.Version)
	case h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits:
		return h, 0, fmt.Errorf("qcow2 header is damaged: clusters of 2^%d bytes", h.ClusterBits)
	case h.Size == 0 || h.Size > maxSize:
		return h, 0, fmt.Errorf("qcow2 header is damaged: size %d", h.Size)
	case h.CryptMethod != 0:
		return h, 0, errors.New("it is encrypted")
	case h.Incompatible&^(dirty|compressed) != 0:
		return h, 0, fmt.Errorf("it uses features that are not supported, or is corrupt (%#x)", h.Incompatible&^(dirty|compressed))
	}
	if h.Incompatible&compressed != 0 {
		if h.HeaderLength <= headerLength || b[headerLength] > 1 {
			return h, 0, errors.New("it is compressed in an unknown way")
		}
		packing = b[headerLength]
	}
	return h, packing, nil
}

func table(r io.ReaderAt, at, entries uint64) ([]uint64, error) {
	t := make([]uint64, entries)
	if err := binary.Read(io.NewSectionReader(r, int64(at), int64(entries*8)), binary.BigEndian, t); err != nil {
		return nil, fmt.Errorf("read a table at %d: %w", at, err)
	}
	return t, nil
}

// entry is what the file says of a cluster of the disk; 0 = it holds nothing of it.
func (i *Image) entry(n int64) (uint64, error) {
	per := int64(1) << (i.bits - 3)
	at := i.l1[n/per] & offsetMask
	if at == 0 {
		return 0, nil
	}
	if i.l2 == nil || i.l2At != at {
		t, err := table(i.r, at, uint64(per))
		if err != nil {
			return 0, err
		}
		i.l2, i.l2At = t, at
	}
	return i.l2[n%per], nil
}

// what a cluster is in the file.
type state int

const (
	absent state = iota // the backing file's, or zeros without one
	zeros
	data
)

// cluster reads a cluster of the disk into b, which has its size, if the file has data of it.
func (i *Image) cluster(n int64, b []byte) (state, error) {
	e, err := i.entry(n)
	switch {
	case err != nil:
		return absent, err
	case e&packedFlag != 0:
		return data, i.unpack(e, b)
	case i.version > oldVersion && e&zeroFlag != 0:
		return zeros, nil
	case e&offsetMask == 0:
		return absent, nil
	}
	m, err := i.r.ReadAt(b, int64(e&offsetMask))
	if m > 0 && errors.Is(err, io.EOF) { // the last one may be cut off where nothing follows
		clear(b[m:])
		err = nil
	}
	if err != nil {
		return absent, fmt.Errorf("read a cluster at %d: %w", e&offsetMask, err)
	}
	return data, nil
}

// unpack reads a compressed cluster.
func (i *Image) unpack(e uint64, b []byte) error {
	x := 62 - (i.bits - 8)
	at := int64(e & (1<<x - 1))
	sectors := int64(e>>x&(1<<(62-x)-1)) + 1
	from := io.NewSectionReader(i.r, at, sectors*512-at&511)
	var in io.Reader
	if i.zstd {
		d, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<27))
		if err != nil {
			return fmt.Errorf("read a compressed cluster at %d: %w", at, err)
		}
		defer d.Close()
		in = d
	} else {
		d := flate.NewReader(from)
		defer func() { _ = d.Close() }()
		in = d
	}
	if _, err := io.ReadFull(in, b); err != nil {
		return fmt.Errorf("read a compressed cluster at %d: %w", at, err)
	}
	return nil
}

// ReadAt reads what the file itself holds, where it holds nothing zeros. For a look at a disk's beginning.
func (i *Image) ReadAt(p []byte, off int64) (n int, err error) {
	size := int64(1) << i.bits
	b := make([]byte, size)
	for n < len(p) && off < i.Size {
		s, err := i.cluster(off/size, b)
		if err != nil {
			return n, err
		}
		if s != data {
			clear(b)
		}
		m := copy(p[n:], b[off%size:min(size, i.Size-off+off%size)])
		n, off = n+m, off+int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// CopyTo writes what the file holds to w, in place of the backing file's content that is there already, or of nothing but
// zeros where it has none.
func (i *Image) CopyTo(ctx context.Context, w io.WriterAt) error {
	size := int64(1) << i.bits
	b, none := make([]byte, size), make([]byte, size)
	for n := int64(0); n*size < i.Size; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		per := int64(1) << (i.bits - 3)
		if i.l1[n/per]&offsetMask == 0 {
			n += per - 1 - n%per // to the last cluster of the table that is not there
			continue
		}
		s, err := i.cluster(n, b)
		if err != nil {
			return err
		}
		if s == zeros {
			clear(b)
		}
		if s == absent || i.Backing == "" && bytes.Equal(b, none) {
			continue
		}
		if _, err := w.WriteAt(b[:min(size, i.Size-n*size)], n*size); err != nil {
			return err
		}
	}
	return nil
}
