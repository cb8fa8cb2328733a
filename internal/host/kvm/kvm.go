// Package kvm is the thin look at hardware virtualization: may /dev/kvm be opened, and does the processor have what it
// needs. That proves nothing yet: only a guest that booted does, and a VMM driver tries that.
package kvm

import (
	"errors"
	"os"
	"slices"
	"strings"
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
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Verdict{Why: "there is no " + device,
			Hint: "switch hardware virtualization on, in the firmware or in the machine below (nested), for guests ten times as fast"}
	case errors.Is(err, os.ErrPermission):
		return Verdict{Why: device + " may not be opened by this user", Hint: "add the user to the group kvm, and log in again"}
	case err != nil:
		return Verdict{Why: "opening fails: " + err.Error()}
	}
	_ = dev.Close()
	info, err := os.ReadFile(cpuinfo)
	if err != nil || !hasVirtualization(info) {
		return Verdict{Why: device + " opens but the processor has no vmx or svm flag: a KVM without hardware virtualization below hangs stock kernels",
			Hint: "switch nested virtualization on in the machine below"}
	}
	return Verdict{Usable: true}
}

// hasVirtualization looks for Intel's or AMD's flag in /proc/cpuinfo.
func hasVirtualization(cpuinfo []byte) bool {
	for line := range strings.Lines(string(cpuinfo)) {
		name, flags, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == "flags" {
			f := strings.Fields(flags)
			return slices.Contains(f, "vmx") || slices.Contains(f, "svm")
		}
	}
	return false
}
