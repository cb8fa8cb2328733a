// Package logfile bounds a log that another process writes and cannot rotate itself: a guest's console, a VMM's words.
// It knows nothing about what is in the log.
package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// pause is the least time between two looks at a log, however fast it grows.
const pause = 250 * time.Millisecond

// Old is where the kept half of a cut log lies.
func Old(path string) string { return path + ".1" }

// Bound keeps the log at path near max bytes until ctx ends, whose error it returns. Each time the log is larger, its
// last max/2 bytes, from the beginning of a line, replace Old(path), and it is cut to nothing. A writer that has opened it
// for appending (O_APPEND) goes on at its new end; one that has not, where it was, behind a hole: zeros that take no space
// and do not count. What either writes between the copy and the cut is lost.
// On a full disk nothing is kept, and it is cut all the same. In between looks the log can grow past max by what its
// writer manages in a quarter of a second.
//
// The log need not exist yet and may be replaced; its directory must exist. Another error than ctx's means that it cannot
// be watched, or is no regular file.
func Bound(ctx context.Context, path string, max int64) error {
	err := bound(ctx, path, max)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("bound log %s: %w", path, err)
}

func bound(ctx context.Context, path string, max int64) error {
	w, err := newWatch(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer w.close()
	pacing := time.NewTimer(0)
	defer pacing.Stop()
	for {
		select { // the writer's events pile up meanwhile, as one
		case <-pacing.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.follow(path); err != nil {
			return err
		}
		// What else goes wrong (no descriptor free, an I/O error) may go right next time: the log grows on.
		if err := cut(ctx, path, max); errors.Is(err, errIrregular) || errors.Is(err, unix.ELOOP) {
			return err
		}
		select { // what happened does not matter, only that something did
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.failed(); err != nil {
			return err
		}
		pacing.Reset(pause)
	}
}

var errIrregular = errors.New("it is no regular file")

// cut does the work when the log is too large.
func cut(ctx context.Context, path string, max int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Size() <= max {
		return err
	}
	if !info.Mode().IsRegular() {
		return errIrregular
	}
	if info.Size()-hole(f, info.Size()) <= max {
		return nil
	}
	// Where its end cannot be kept, most likely on a full disk, a bounded log is worth more than a whole one.
	kerr := keep(ctx, f, info.Size(), max/2, Old(path))
	return errors.Join(kerr, act.Do(ctx, "log.cut", func() error { return f.Truncate(0) }))
}

// hole is how much of a file is a hole at its beginning: 0 as well where that cannot be told.
func hole(f *os.File, size int64) int64 {
	data, err := f.Seek(0, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // there is none
		return size
	}
	if err != nil {
		return 0
	}
	return data
}

// keep writes the last n of size bytes to the file old, by way of a temporary one. The first line is left out unless it
// is whole.
func keep(ctx context.Context, f *os.File, size, n int64, old string) (err error) {
	last := make([]byte, n)
	got, err := f.ReadAt(last, size-n)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	last = afterLineEnd(bytes.TrimLeft(last[:got], "\x00"))
	tmp := old + ".tmp" // one Bound a log: nobody else writes it, and a crash leaves at most this one
	defer func() {
		if err != nil {
			_ = act.Do(ctx, "log.temp.remove", func() error { return os.Remove(tmp) })
		}
	}()
	if err := act.Do(ctx, "log.temp", func() error { return os.WriteFile(tmp, last, 0o600) }); err != nil {
		return err
	}
	return act.Do(ctx, "log.old", func() error { return os.Rename(tmp, old) })
}

// afterLineEnd drops what comes before the first whole line; a text without line ends stays.
func afterLineEnd(b []byte) []byte {
	if _, rest, ok := bytes.Cut(b, []byte("\n")); ok && len(rest) > 0 {
		return rest
	}
	return b
}
