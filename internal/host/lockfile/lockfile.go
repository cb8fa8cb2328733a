// Package lockfile takes exclusive locks (flock) on files. The kernel drops a lock with the process that holds it, so a
// file that lies there says nothing. It knows nothing about who locks what against whom.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/act"
)

// Take locks the file, which it makes if need be, and returns how to drop the lock. It blocks in the kernel, not in a
// loop: when ctx ends first, with its cause, the file is left to the waiting goroutine, which closes it as soon as it
// gets the lock.
func Take(ctx context.Context, path string) (drop func(), err error) {
	var f *os.File
	err = act.Do(ctx, "lock", func() (err error) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	fd := int(f.Fd())
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		return func() { _ = f.Close() }, nil
	}
	var lockErr error // of the goroutine, until done is closed
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if lockErr = unix.Flock(fd, unix.LOCK_EX); !errors.Is(lockErr, unix.EINTR) {
				return
			}
		}
	}()
	select {
	case <-done:
		if lockErr != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, lockErr)
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		go func() { <-done; _ = f.Close() }()
		return nil, context.Cause(ctx)
	}
}
