package testhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func openable(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// kvm looks at the processor's flags first: /dev/kvm opens on hosts where no guest ever prints a byte.
func kvm() error {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if !strings.HasPrefix(line, "flags") {
			continue
		}
		if f := strings.Fields(line); slices.Contains(f, "svm") || slices.Contains(f, "vmx") {
			return openable("/dev/kvm")
		}
		break
	}
	return errors.New("the processor has no hardware virtualization (svm, vmx)")
}

// loop asks the kernel for a free device, which makes none busy.
func loop() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
		return fmt.Errorf("ask for a free loop device: %w", err)
	}
	return nil
}

// tun makes a tap device that goes with its descriptor.
func tun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make a tap device: %w", err)
	}
	return nil
}

// fileSystem says whether the kernel can mount one: built in, loaded, or a module that it would load.
func fileSystem(name string) error {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(known)), name) {
		return nil
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	modules, err := os.ReadFile(filepath.Join("/lib/modules", unix.ByteSliceToString(uts.Release[:]), "modules.dep"))
	if err != nil || !strings.Contains(string(modules), "/"+name+".ko") {
		return fmt.Errorf("the kernel has no %s", name)
	}
	return nil
}

// nft asks for the list of tables, which only a kernel with nftables has.
func nft() error {
	if err := programs("nft"); err != nil {
		return err
	}
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil {
		return fmt.Errorf("list tables: %w: %s", err, out)
	}
	return nil
}

func cgroup2() error {
	at, err := cgroupTop()
	if err != nil {
		return err
	}
	return unix.Access(at, unix.W_OK)
}

// cgroupTop is where the cgroup v2 hierarchy is mounted.
func cgroupTop() (string, error) {
	s, err := mounts()
	if err != nil {
		return "", err
	}
	for _, m := range s {
		if at, ok := strings.CutSuffix(m.Text, " type cgroup2"); ok {
			_, at, _ = strings.Cut(at, " on ")
			return at, nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}

// guest looks where the build embeds from. A test runs in its package's directory, somewhere in the source tree.
func guest() error {
	repo, err := repo()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(repo, "internal/guestbin/bin/banger-guest.sha256")); err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	return nil
}
