package agent

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// output is one stream from the command to whoever asked.
type output struct {
	from *os.File
	fd   int
	to   io.Writer
}

// copyBuffer is one frame at most.
const copyBuffer = guest.MaxFrame

// buffers are reused: a fresh 64 KiB for each of two streams is most of what an exec would allocate.
var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// copy passes on what comes, until the end or the deadline. The error is that of the receiver.
func (o output) copy() error {
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for {
		n, err := o.from.Read(buf[:])
		if n > 0 {
			if _, err := o.to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return o.copyRest(buf[:])
		}
		if err != nil {
			return nil // end of file, or of the terminal (EIO)
		}
	}
}

// copyRest passes on what lies in the pipe now, without waiting. All that the command itself wrote is within the first
// pipe's capacity of it; what follows is from a background child that may never stop.
func (o output) copyRest(buf []byte) error {
	capacity, err := unix.FcntlInt(uintptr(o.fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		capacity = 2 * copyBuffer // a terminal
	}
	for capacity > 0 {
		n, err := unix.Read(o.fd, buf[:min(len(buf), capacity)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return nil
		}
		if _, err := o.to.Write(buf[:n]); err != nil {
			return err
		}
		capacity -= n
	}
	return nil
}
