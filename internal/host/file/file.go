// Package file is the thin hand on single files: publishing them whole or not at all, cloning them, copying them with
// their holes. It knows nothing of images or VMs and decides nothing.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Publish makes tmp, a file or a directory, appear as final: its content reaches the disk before its name does, and the
// name before Publish returns. Both must lie on one file system. A file at final is replaced. Of a directory only the
// entry list is synced: its files are the caller's to sync. what names its kind in crash points.
func Publish(ctx context.Context, what, tmp, final string) error {
	if err := Sync(tmp); err != nil {
		return fmt.Errorf("publish %s: %w", final, err)
	}
	if err := act.Do(ctx, what, func() error { return os.Rename(tmp, final) }); err != nil {
		return fmt.Errorf("publish %s: %w", final, err)
	}
	return SyncDir(filepath.Dir(final))
}

// SyncDir makes names that were added to or removed from dir durable.
func SyncDir(dir string) error { return Sync(dir) }

// Sync waits until the content of a file, or the entries of a directory, are on the disk.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// tempMark is in the name of each unpublished file, so that what a dead process left can be told from everything else.
const tempMark = ".tmp-"

// Create makes the file final by calling fill with the path of an empty temporary file beside it, then publishes that.
// A file that exists is left as it is and fill is not called. When fill fails nothing is left. Mode is 0600.
func Create(ctx context.Context, what, final string, fill func(tmp string) error) (err error) {
	if _, err := os.Lstat(final); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var tmp string
	err = act.Do(ctx, what+".temp", func() error {
		f, err := os.CreateTemp(filepath.Dir(final), "."+filepath.Base(final)+tempMark+"*")
		if err != nil {
			return err
		}
		tmp = f.Name()
		return f.Close()
	})
	defer func() {
		if err != nil && tmp != "" {
			_ = act.Do(ctx, what+".temp.remove", func() error { return os.Remove(tmp) })
		}
	}()
	if err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	return Publish(ctx, what, tmp, final)
}

// Temp makes an empty file that nobody else knows of. remove takes it away again; who dies before leaves it.
func Temp(ctx context.Context, what, dir, pattern string) (f *os.File, remove func(), err error) {
	err = act.Do(ctx, what, func() (err error) {
		f, err = os.CreateTemp(dir, pattern)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = act.Do(ctx, what+".remove", func() error { return os.Remove(f.Name()) }) }, nil
}

// Write puts content under path in one step, in the place of what is there: a reader sees the one or the other. It is on
// the disk when it returns.
func Write(ctx context.Context, what, path string, content []byte, mode os.FileMode) error {
	return act.Do(ctx, what, func() error {
		return renameio.WriteFile(path, content, mode, renameio.WithTempDir(filepath.Dir(path)))
	})
}

// WriteNew makes a file that is not there yet, on the disk when it returns. It is no act of its own: for files within a
// directory that is published as a whole.
func WriteNew(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Remove deletes a file made by Create, and what a Create that died half-way left of it. Absent files are success.
func Remove(ctx context.Context, what, final string) error {
	var errs []error
	if err := remove(ctx, what+".remove", final); err != nil {
		errs = append(errs, err)
	}
	dir, prefix := filepath.Dir(final), "."+filepath.Base(final)+tempMark
	entries, err := os.ReadDir(dir) // no glob: a path may hold its special characters
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		random, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || strings.Trim(random, "0123456789") != "" { // a person's, who kept a copy
			continue
		}
		if err := remove(ctx, what+".temp.remove", filepath.Join(dir, e.Name())); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func remove(ctx context.Context, object, path string) error {
	return act.Do(ctx, object, func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

// Allocated is how many bytes of the host's disk a file takes; holes take none.
func Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil // st_blocks counts 512-byte units on every file system
}

// NoSpace says whether err means that a disk or quota is full.
func NoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
