package agent

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// parseOrder reads the module list of the initramfs: one file name a line, in load order. A name that leaves the
// directory is refused.
func parseOrder(list string) ([]string, error) {
	var names []string
	for line := range strings.Lines(list) {
		name := strings.TrimSpace(line)
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if strings.Contains(name, "\x00") || !path.IsAbs(path.Join("/", name)) || path.Join("/", name) != "/"+name {
			return nil, fmt.Errorf("module list names %q, which is no plain path", name)
		}
		names = append(names, name)
	}
	return names, nil
}

// The lists of the initramfs: what every guest loads, and what a channel over vsock takes besides.
const (
	orderAll   = "order"
	orderVSock = "order.vsock"
)

// moduleLists names the lists that a guest with this channel loads, in order.
func moduleLists(channel string) []string {
	if strings.HasPrefix(channel, "vsock:") {
		return []string{orderAll, orderVSock}
	}
	return []string{orderAll}
}

// loadModules loads what each of the lists in dir names. A module that fails does not stop the others: whether it mattered
// shows when its device is missing, and the joined errors then say why.
func loadModules(dir string, lists ...string) error {
	return eachModule(dir, lists, loadModule)
}

func eachModule(dir string, lists []string, load func(file string) error) error {
	var errs []error
	for _, name := range lists {
		list, err := os.ReadFile(path.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel with everything built in
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read module list: %w", err))
			continue
		}
		files, err := parseOrder(string(list))
		errs = append(errs, err)
		for _, f := range files {
			errs = append(errs, load(path.Join(dir, f)))
		}
	}
	return errors.Join(errs...)
}

func loadModule(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.FinitModule(fd, "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}
