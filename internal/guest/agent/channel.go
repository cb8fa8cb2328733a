package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// serve answers on the channel for ever; it returns only with an error. notify, when not nil, is told of the first
// Configure; home is as of Server's.
func serve(args bootArgs, r *reaper, notify *os.File, home <-chan struct{}) error {
	s, err := newServer(r, machine{init: args.init})
	if err != nil {
		return err
	}
	s.init, s.notify, s.protected, s.home = args.init, notify, notify != nil, home
	if s.cgroups, err = newCgroups(); err != nil {
		say("%v", err)
	}
	if os.Getpid() == 1 {
		go s.powerOffOnSignal()
	}
	// The kernel gives init 1024, and 4096 at most; programs in here inherit ours.
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 16, Max: 1 << 19}); err != nil {
		say("raise the limit of open files: %v", err)
	}
	if err := errors.Join(calmMonitor(), loopbackUp()); err != nil {
		say("%v", err)
	}
	kind, name, _ := strings.Cut(args.channel, ":")
	if kind == "vsock" {
		port, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return fmt.Errorf("kernel parameter %s=%q: %w", guest.ArgChannel, args.channel, err)
		}
		l, err := listenVsock(uint32(port))
		if err != nil {
			return err
		}
		return s.Serve(l)
	}
	port, err := openVirtioPort(name)
	if err != nil {
		return err
	}
	return guest.ServePort(context.Background(), port, s.Serve)
}

// openVirtioPort opens the virtio-serial port of that name. A port opens once: who closes it must open it anew.
func openVirtioPort(name string) (*os.File, error) {
	events, err := openUevents()
	if err != nil {
		return nil, err
	}
	defer events.close()
	var port *os.File
	err = events.await(deviceWait, "channel virtio:"+name, func() (bool, error) {
		dev, ok := findPort("/sys/class/virtio-ports", name)
		if !ok {
			return false, nil
		}
		node := "/dev/" + dev
		if _, err := os.Stat(node); err != nil {
			return false, nil // devtmpfs makes it just before the uevent
		}
		fd, err := unix.Open(node, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, fmt.Errorf("open channel %s: %w", node, err)
		}
		port = os.NewFile(uintptr(fd), node)
		return true, nil
	})
	return port, err
}

// findPort returns the device name ("vport0p1") of the port called name.
func findPort(class, name string) (dev string, ok bool) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		b, err := os.ReadFile(path.Join(class, e.Name(), "name"))
		if err == nil && strings.TrimSpace(string(b)) == name {
			return e.Name(), true
		}
	}
	return "", false
}
