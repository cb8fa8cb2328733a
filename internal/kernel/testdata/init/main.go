// Command init is the init of the guest in TestRealBoot: it does what a guest does with a kernel of this package, says so on the
// console, and ends the machine.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	err := run()
	fmt.Println("RESULT:", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if _, err := os.Stat("/dev/console"); err != nil {
		return err
	}
	err := errors.Join(unix.Mount("proc", "/proc", "proc", 0, ""), unix.Mount("sys", "/sys", "sysfs", 0, ""),
		unix.Mount("dev", "/dev", "devtmpfs", 0, ""))
	if err != nil {
		return err
	}
	for _, list := range []string{"order", "order.vsock"} {
		order, err := os.ReadFile("/modules/" + list)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(string(order)) {
			if err := load("/modules/" + name); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat("/sys/class/net/eth0"); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/vsock"); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	fmt.Println("RELEASE:", release)
	dir := filepath.Join("/lib/modules", release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", dir, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount the modules disk: %w", err)
	}
	for _, name := range []string{"overlay", "wireguard"} {
		if err := modprobe(dir, name); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmp", "/tmp", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir("/tmp/"+d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("o", "/tmp/m", "overlay", 0, "lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w"); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return nil
}

// modprobe loads a module and what it needs, by the modules.dep on the disk.
func modprobe(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		file, deps, _ := strings.Cut(s.Text(), ":")
		if filepath.Base(file) != name+".ko" {
			continue
		}
		need := append([]string{file}, strings.Fields(deps)...)
		for i := len(need) - 1; i >= 0; i-- {
			if err := load(filepath.Join(dir, need[i])); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("modules.dep has no %s", name)
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}
