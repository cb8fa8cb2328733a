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
)

// ReadOptions say how much of a log is wanted.
type ReadOptions struct {
	Tail   int  // only the last lines; negative = all
	Follow bool // go on with what is appended, until ctx ends
}

// Read writes the log at path to w: what Bound put aside in path+".1", then the file. A log that does not exist (yet)
// is empty. With Follow it returns when ctx ends, w fails or the log's directory is removed, waits for a directory that is
// not there yet, and survives the truncation by Bound. An error from before the first write, which may be one of nothing,
// says that nothing was begun.
func Read(ctx context.Context, path string, o ReadOptions, w io.Writer) error {
	var events *watch
	if o.Follow { // watched before it is read: nothing falls between
		var err error
		if events, err = newWatch(filepath.Dir(filepath.Dir(path))); err != nil {
			return fmt.Errorf("follow log %s: %w", path, err)
		}
		defer events.close()
		there, err := events.log(path)
		if err != nil {
			return fmt.Errorf("follow log %s: %w", path, err)
		}
		if !there {
			if _, err := w.Write(nil); err != nil {
				return err
			}
			return follow(ctx, path, 0, false, events, w)
		}
	}
	old, err := os.ReadFile(Old(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read log: %w", err)
	}
	now, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := w.Write(LastLines(append(old, now...), o.Tail)); err != nil || !o.Follow {
		return err
	}
	return follow(ctx, path, int64(len(now)), true, events, w)
}

// log watches the log and its directory, as far as they are there. It says whether the directory is.
func (w *watch) log(path string) (there bool, err error) {
	err = w.directory(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = w.follow(path)
	}
	return err == nil, err
}

// follow writes what the log has beyond offset, and what comes, until its directory goes, which was there or is waited for.
func follow(ctx context.Context, path string, offset int64, there bool, events *watch, w io.Writer) error {
	for {
		select {
		case <-events.wake:
		case <-ctx.Done():
			return nil
		}
		now, err := events.log(path)
		if err = errors.Join(err, events.failed()); err != nil {
			return fmt.Errorf("follow log %s: %w", path, err)
		}
		if there && !now {
			return nil
		}
		there = there || now
		if offset, err = copyFrom(path, offset, w); err != nil {
			return err
		}
	}
}

// copyFrom writes what path has beyond offset and returns the new offset. A file that shrank is read from its begin.
func copyFrom(path string, offset int64, w io.Writer) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return offset, fmt.Errorf("follow log: %w", err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return offset, fmt.Errorf("follow log: %w", err)
	}
	if fi.Size() < offset {
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset, fmt.Errorf("follow log: %w", err)
	}
	n, err := io.Copy(w, f)
	return offset + n, err
}

// LastLines are the last n lines of b; with n negative all.
func LastLines(b []byte, n int) []byte {
	if n < 0 {
		return b
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for ; n > 0 && end >= 0; n-- {
		end = bytes.LastIndexByte(b[:max(end, 0)], '\n')
		if end < 0 {
			return b
		}
	}
	return b[min(end+1, len(b)):]
}
