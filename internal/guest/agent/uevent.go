package agent

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// uevents hears the kernel announce devices. It is opened before the modules are loaded, so that nothing is missed.
type uevents struct{ fd int }

func openUevents() (*uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind uevent socket: %w", err)
	}
	return &uevents{fd}, nil
}

func (u *uevents) close() { _ = unix.Close(u.fd) }

// await calls ready now and after each round of events, until it returns true or an error. What the events say is of no
// interest, sysfs is: an overrun of the socket (ENOBUFS) loses nothing that way.
func (u *uevents) await(within time.Duration, what string, ready func() (bool, error)) error {
	deadline := time.Now().Add(within)
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("wait for %s: not there after %v: %w", what, within, os.ErrDeadlineExceeded)
		}
		fds := []unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		u.drain()
	}
}

func (u *uevents) drain() {
	buf := make([]byte, 4096)
	for {
		_, _, err := unix.Recvfrom(u.fd, buf, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}
