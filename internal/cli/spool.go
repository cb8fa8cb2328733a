package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"banger/internal/vm"
)

// spoolDir is where a stream is kept as a file: what comes may be large, and /tmp is memory on many hosts.
func spoolDir() string { return cmp.Or(os.Getenv("TMPDIR"), "/var/tmp") }

// spooled makes a file of what comes on standard input, for a daemon that reads it here and there: a path that is good until
// done is called or this process ends. The file has no name, so nothing is left whatever happens. What is a file already, read
// from its beginning, is that file.
func (a *app) spooled(ctx context.Context) (path string, done func(), err error) {
	if err := a.noTerminal(); err != nil {
		return "", nil, err
	}
	if st, err := a.in.Stat(); err == nil && st.Mode().IsRegular() {
		if at, err := a.in.Seek(0, io.SeekCurrent); err == nil && at == 0 {
			return procPath(a.in), func() {}, nil
		}
	}
	f, err := unnamed(spoolDir())
	if err != nil {
		return "", nil, fmt.Errorf("keep standard input in a file: %w", err)
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(f, a.in)
		copied <- err
	}()
	select {
	case <-ctx.Done(): // the reader waits on, until this process ends
		return "", nil, context.Cause(ctx)
	case err := <-copied:
		if err != nil {
			return "", nil, errors.Join(fmt.Errorf("keep standard input in %s: %w", spoolDir(), err), f.Close())
		}
	}
	return procPath(f), func() { _ = f.Close() }, nil
}

// noTerminal refuses a terminal where a file is to come on standard input: nobody types one.
func (a *app) noTerminal() error {
	if term.IsTerminal(int(a.in.Fd())) {
		return vm.Errorf(vm.CodeInvalid, "standard input is a terminal").WithHint("pipe a file in, or name one")
	}
	return nil
}

// unnamed makes a file in dir that is in no directory.
func unnamed(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, "banger-"); err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// procPath is a path of an open file for other processes of this user.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
