package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// dial connects to a socket of a VMM's. Where that is in a jail, path is a link of ours to a name in there, under which the
// VMM can put anything: what is there must be a socket, and no link further on, which would be followed out here.
func dial(ctx context.Context, path string) (net.Conn, error) {
	if to, err := os.Readlink(path); err == nil {
		path = to
	}
	// The very file that is looked at is connected to, by its descriptor.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%s is no socket", path)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	var op *net.OpError
	if errors.As(err, &op) { // it names the descriptor
		err = fmt.Errorf("connect to %s: %w", path, op.Err)
	}
	return conn, err
}
