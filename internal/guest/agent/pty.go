package agent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// openPty makes a pseudo-terminal of the given size (0 = 24×80): the master for us, non-blocking, and the slave for the
// command. The slave is opened through the master, so that no path in the image comes between.
func openPty(rows, cols uint16) (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("open a terminal: %w", err)
	}
	if slave, err = openPeer(master); err != nil {
		_ = unix.Close(master)
		return -1, -1, fmt.Errorf("open a terminal: %w", err)
	}
	if rows == 0 || cols == 0 {
		rows, cols = 24, 80
	}
	_ = resize(master, rows, cols) // a terminal of unknown size still is one
	return master, slave, nil
}

func openPeer(master int) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func resize(fd int, rows, cols uint16) error {
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return fmt.Errorf("resize the terminal to %d×%d: %w", rows, cols, err)
	}
	return nil
}
