// Package kvm is the thin look at hardware virtualization: may /dev/kvm be opened, and does the processor have what it
// needs. That proves nothing yet: only a guest that booted does, and a VMM driver tries that.
package kvm

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Host is where to look; the zero Host is this one. Tests look elsewhere.
type Host struct {
	Device  string // empty = /dev/kvm
	CPUInfo string // empty = /proc/cpuinfo
}

// Verdict is what was seen.
type Verdict struct {
	Usable bool   // a boot is worth trying
	Why    string // why not: the end of a sentence, for people
	Hint   string // what would help
}

// Look opens the device and reads the processor's flags. It costs nothing, so that it is done each time.
func (h Host) Look() Verdict {
	device, cpuinfo := h.Device, h.CPUInfo
	if device == "" {
		device = "/dev/kvm"
	}
	if cpuinfo == "" {
		cpuinfo = "/proc/cpuinfo"
	}
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		_ = dev.Close()
	}
	info, _ := os.ReadFile(cpuinfo)
	flag := virtualization(info)
	const nested = "switch nested virtualization on in the machine below"
	switch {
	case errors.Is(err, os.ErrNotExist) && flag != "":
		return Verdict{Why: "there is no " + device, Hint: "load the kernel's module, as root: modprobe " + modules[flag]}
	case errors.Is(err, os.ErrNotExist):
		return Verdict{Why: "there is no " + device,
			Hint: "switch hardware virtualization on, in the firmware or in the machine below (nested), for guests ten times as fast"}
	case err == nil && flag == "":
		return Verdict{Why: device + " opens but the processor has no vmx or svm flag: a KVM without hardware virtualization below hangs stock kernels",
			Hint: nested}
	case flag == "": // whoever may open it: that would not help
		return Verdict{Why: "the processor has no vmx or svm flag", Hint: nested}
	case errors.Is(err, os.ErrPermission):
		return Verdict{Why: device + " may not be opened by this user", Hint: admit(device)}
	case err != nil:
		return Verdict{Why: "opening fails: " + err.Error()}
	}
	return Verdict{Usable: true}
}

// modules have KVM for processors with a flag.
var modules = map[string]string{"vmx": "kvm_intel", "svm": "kvm_amd"}

// virtualization is Intel's or AMD's flag in /proc/cpuinfo; empty = neither is there.
func virtualization(cpuinfo []byte) string {
	for line := range strings.Lines(string(cpuinfo)) {
		name, flags, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(flags) {
			if modules[flag] != "" {
				return flag
			}
		}
		break
	}
	return ""
}

// admit is the command that lets this user open the device: it is the group's, as udev and most distributions have it.
func admit(device string) string {
	name := strconv.Itoa(os.Geteuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	fi, err := os.Stat(device)
	if err != nil {
		return ""
	}
	group, gid := "kvm", -1
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Gid != 0 { // nobody is to become one of root's group for this
		if g, err := user.LookupGroupId(strconv.Itoa(int(st.Gid))); err == nil {
			group, gid = g.Name, int(st.Gid)
		}
	}
	first := ""
	if gid < 0 || fi.Mode().Perm()&0o060 != 0o060 {
		first = fmt.Sprintf("chgrp %s %s && chmod 660 %s && ", group, device, device)
	} else if groups, _ := os.Getgroups(); slices.Contains(groups, gid) {
		return "" // something else keeps it shut
	}
	return fmt.Sprintf("as root: %susermod -aG %s %s; then log in again", first, group, name)
}
