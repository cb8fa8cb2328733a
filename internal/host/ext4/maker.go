package ext4

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Maker makes file systems, and remembers the blocks of each kind: a program like mkfs takes many times as long to start as
// they do to write. File systems of one size and label that one Maker made have one UUID. The zero Maker is ready, and
// safe for use by several goroutines.
type Maker struct {
	mu   sync.Mutex
	made map[kind][]extent
}

// kind is what makes two new file systems the same.
type kind struct {
	size  int64
	label string
}

// extent is a stretch of a file that is no hole.
type extent struct {
	at   int64
	data []byte
}

// What is remembered at most: a new file system of some GiB has 200 KiB that are no holes, and few sizes are asked for.
const (
	rememberedKinds = 8
	rememberedBytes = 1 << 20
)

// write makes the file system of that kind in the empty file at path, if it is remembered.
func (m *Maker) write(path string, k kind) (known bool, err error) {
	m.mu.Lock()
	extents, known := m.made[k]
	m.mu.Unlock()
	if !known {
		return false, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return true, err
	}
	for _, e := range extents {
		if _, err := f.WriteAt(e.data, e.at); err != nil {
			_ = f.Close()
			return true, err
		}
	}
	return true, f.Close()
}

// remember takes the file system at path for the next one of its kind, unless that would be too much to hold, or the host's
// own file system cannot tell holes: then each is made by mkfs.
func (m *Maker) remember(path string, k kind) {
	extents, err := read(path, rememberedBytes)
	if extents == nil || err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.made) >= rememberedKinds {
		return
	}
	if m.made == nil {
		m.made = map[kind][]extent{}
	}
	m.made[k] = extents
}

// read returns what of the file at path is no hole; nil where that is more than limit bytes.
func read(path string, limit int64) (all []extent, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	for end := int64(0); ; {
		begin, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return all, nil // a hole up to the end
		}
		if err == nil {
			end, err = f.Seek(begin, unix.SEEK_HOLE)
		}
		if err != nil {
			return nil, fmt.Errorf("find data of %s: %w", path, err)
		}
		if limit -= end - begin; limit < 0 {
			return nil, nil
		}
		data := make([]byte, end-begin)
		if _, err := f.ReadAt(data, begin); err != nil {
			return nil, err
		}
		all = append(all, extent{begin, data})
	}
}
