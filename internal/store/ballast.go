package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// BallastName is the file beside the database that takes up space for nothing: on a full disk it is given up, so that
// what makes room can be written down.
const BallastName = "ballast"

const (
	// ballastSize is room for the -wal file at its usual largest (1000 pages) and for what follows it into the database.
	ballastSize = 4 << 20
	// ballastRoom is what must be free before a new one is made: else it would take what giving it up has just won.
	ballastRoom = 2 * ballastSize
)

type ballast struct {
	path  string
	drops atomic.Int64 // how often it was given up

	mu     sync.Mutex // of the file
	loaded atomic.Bool
}

// load makes the file where there is none and the disk has room. It fails silently: without ballast a full disk is what
// it was before.
func (b *ballast) load(ctx context.Context) {
	if b.loaded.Load() || !b.mu.TryLock() { // somebody else is at it
		return
	}
	defer b.mu.Unlock()
	if n, err := sizeOf(b.path); err == nil && n >= ballastSize {
		b.loaded.Store(true)
		return
	}
	var st unix.Statfs_t
	if unix.Statfs(filepath.Dir(b.path), &st) != nil || st.Bavail*uint64(st.Bsize) < ballastRoom {
		return
	}
	err := act.Do(ctx, "ballast", func() error {
		f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(allocate(f), f.Close()); err != nil {
			_ = os.Remove(b.path)
			return err
		}
		return nil
	})
	if err != nil {
		return
	}
	b.loaded.Store(true)
}

// allocate gives the file its blocks.
func allocate(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = io.CopyN(f, rand.Reader, ballastSize) // random: such file systems may compress
	}
	return err
}

// drop gives the file up. It says whether there is new room: this call made it, or another one since drops was before.
func (b *ballast) drop(ctx context.Context, before int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loaded.Store(false)
	if act.Do(ctx, "ballast.remove", func() error { return os.Remove(b.path) }) == nil {
		b.drops.Add(1)
	}
	return b.drops.Load() != before
}
