// Command guest is the init of the driver's test guests: it loads the modules it finds in /modules, then does what test.do= of the kernel
// command line says.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

func main() {
	mount("proc", "/proc")
	mount("sysfs", "/sys")
	mount("devtmpfs", "/dev")
	args := map[string]string{}
	line, _ := os.ReadFile("/proc/cmdline")
	for _, a := range strings.Fields(string(line)) {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	if args[guest.ArgProve] == "1" {
		fmt.Println(guest.ProofLine)
		restart()
	}
	loadModules()
	switch args["test.do"] {
	case "disks":
		disks()
	case "channel":
		channel()
	case "poweroff":
		fmt.Println("READY")
		check(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	case "panic":
		fmt.Println("READY")
		check(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	}
	fmt.Println("READY")
	if args["test.do"] == "hang" {
		select {}
	}
	restart()
}

func restart() { check(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)) }

func check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
	}
}

func mount(kind, at string) {
	check(os.MkdirAll(at, 0o755))
	if err := unix.Mount(kind, at, kind, 0, ""); err != nil && err != unix.EBUSY {
		check(err)
	}
}

// loadModules tries until a round loads nothing more, so that the order of dependencies does not matter.
func loadModules() {
	files, _ := filepath.Glob("/modules/*.ko")
	for progress := true; progress; {
		progress = false
		for i, name := range files {
			if name == "" {
				continue
			}
			f, err := os.Open(name)
			check(err)
			if unix.FinitModule(int(f.Fd()), "", 0) == nil {
				files[i], progress = "", true
			}
			_ = f.Close()
		}
	}
}

// disks prints each disk by serial, with its size, whether it can be written, and its first bytes; then writes to it.
func disks() {
	names, _ := filepath.Glob("/sys/block/vd*")
	sort.Strings(names)
	for _, n := range names {
		dev := "/dev/" + filepath.Base(n)
		serial, _ := os.ReadFile(n + "/serial")
		ro, _ := os.ReadFile(n + "/ro")
		first := make([]byte, 8)
		f, err := os.Open(dev)
		check(err)
		_, err = f.Read(first)
		check(err)
		_ = f.Close()
		fmt.Printf("DISK %s ro=%s first=%s\n", serial, bytes.TrimSpace(ro), bytes.Trim(first, "\x00"))
		if f, err := os.OpenFile(dev, os.O_WRONLY|unix.O_SYNC, 0); err == nil && bytes.HasPrefix(ro, []byte("0")) {
			_, err = f.Write([]byte("written!"))
			check(err)
			_ = f.Close()
		}
	}
	nics, _ := filepath.Glob("/sys/class/net/*/address")
	for _, n := range nics {
		mac, _ := os.ReadFile(n)
		fmt.Printf("NIC %s\n", bytes.TrimSpace(mac))
	}
}

// channel answers each line on the agent's port with the guest's clocks: wall and monotonic, ns.
func channel() {
	ports, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, p := range ports {
		if name, _ := os.ReadFile(p); strings.TrimSpace(string(name)) != guest.ChannelName {
			continue
		}
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(p)), os.O_RDWR, 0)
		check(err)
		begin := time.Now()
		for b := make([]byte, 64); ; {
			n, err := f.Read(b)
			if err != nil || n == 0 {
				// Nobody is connected on the host's side: poll(2) would say POLLHUP.
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if strings.HasPrefix(string(b[:n]), "end") {
				return
			}
			_, err = fmt.Fprintf(f, "%d %d\n", time.Now().UnixNano(), time.Since(begin).Nanoseconds())
			check(err)
		}
	}
	fmt.Println("FAILED no port")
}
