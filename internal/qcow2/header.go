// Package qcow2 reads QEMU's disk format, and writes its smallest file: an overlay that holds nothing yet. It knows nothing of
// images and VMs.
package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The format is QEMU's docs/interop/qcow2.txt, version 3. An empty overlay is four things, one cluster or more each:
// header (with the backing file's name), refcount table, refcount block, L1 table. All else is allocated by QEMU.
const (
	magic        = 0x514649fb // "QFI\xfb"
	version      = 3
	clusterBits  = 16 // 64 KiB, qemu-img's default
	cluster      = 1 << clusterBits
	headerLength = 104
	refcountLog2 = 4 // 16-bit refcounts

	extEnd           = 0
	extBackingFormat = 0xe2792aca

	maxBackingName = 1023     // the format's limit
	maxL1          = 32 << 20 // bytes; QEMU refuses more

	// Cluster is the size of the clusters that are written here.
	Cluster = cluster
)

// header is the part of the on-disk header that banger cares about, big-endian, in file order.
type header struct {
	Magic                 uint32
	Version               uint32
	BackingOffset         uint64
	BackingSize           uint32
	ClusterBits           uint32
	Size                  uint64
	CryptMethod           uint32
	L1Size                uint32
	L1Offset              uint64
	RefcountTableOffset   uint64
	RefcountTableClusters uint32
	Snapshots             uint32
	SnapshotsOffset       uint64
	Incompatible          uint64
	Compatible            uint64
	Autoclear             uint64
	RefcountOrder         uint32
	HeaderLength          uint32
}

// WriteEmpty writes an overlay of size bytes that holds nothing yet and reads through to the raw file base.
func WriteEmpty(w io.WriterAt, base string, size int64) error {
	if len(base) == 0 || len(base) > maxBackingName {
		return fmt.Errorf("name of backing file has %d bytes, qcow2 takes 1 to %d", len(base), maxBackingName)
	}
	const perL1 = cluster * (cluster / 8) // bytes one L1 entry maps: one L2 table of 8-byte entries
	l1 := (size + perL1 - 1) / perL1
	if size <= 0 || l1*8 > maxL1 {
		return fmt.Errorf("size of %d bytes is out of qcow2's range", size)
	}
	l1Clusters := (l1*8 + cluster - 1) / cluster
	used := 3 + l1Clusters // clusters of the whole file; at most 515, so one refcount block counts them all

	h := header{
		Magic: magic, Version: version, ClusterBits: clusterBits, Size: uint64(size),
		RefcountTableOffset: 1 * cluster, RefcountTableClusters: 1,
		L1Offset: 3 * cluster, L1Size: uint32(l1),
		RefcountOrder: refcountLog2, HeaderLength: headerLength,
	}
	ext := binary.BigEndian.AppendUint32(nil, extBackingFormat)
	ext = binary.BigEndian.AppendUint32(ext, uint32(len("raw")))
	ext = append(ext, 'r', 'a', 'w', 0, 0, 0, 0, 0) // padded to eight
	ext = binary.BigEndian.AppendUint64(ext, extEnd)
	h.BackingOffset = uint64(headerLength + len(ext))
	h.BackingSize = uint32(len(base))

	buf, err := binary.Append(make([]byte, 0, cluster), binary.BigEndian, h)
	if err != nil {
		return err
	}
	buf = append(append(buf, ext...), base...)
	refcounts := make([]byte, 2*used)
	for i := range used {
		binary.BigEndian.PutUint16(refcounts[2*i:], 1)
	}
	for _, part := range []struct {
		at   int64
		data []byte
	}{
		{0, buf},
		{1 * cluster, binary.BigEndian.AppendUint64(nil, 2*cluster)}, // the table's one entry: where the block is
		{2 * cluster, refcounts},
		{used*cluster - 1, []byte{0}}, // the L1 table is all holes; the file must reach to its end
	} {
		if _, err := w.WriteAt(part.data, part.at); err != nil {
			return err
		}
	}
	return nil
}
