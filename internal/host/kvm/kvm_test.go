package kvm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLook(t *testing.T) {
	const amd = "processor\t: 0\nflags\t\t: fpu vme svm lm\n\nprocessor\t: 1\nflags\t\t: fpu\n"
	for _, c := range []struct {
		name    string
		device  bool
		cpuinfo string
		usable  bool
		why     string
	}{
		{"all there", true, amd, true, ""},
		{"Intel", true, "flags : fpu vmx\n", true, ""},
		{"no device", false, amd, false, "there is no "},
		{"a KVM that lies", true, "flags : fpu svme vmxx\n", false, "no vmx or svm flag"},
		{"nothing known of the processor", true, "", false, "no vmx or svm flag"},
	} {
		dir := t.TempDir()
		h := Host{Device: filepath.Join(dir, "kvm"), CPUInfo: filepath.Join(dir, "cpuinfo")}
		if c.device {
			if err := os.WriteFile(h.Device, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.cpuinfo != "" {
			if err := os.WriteFile(h.CPUInfo, []byte(c.cpuinfo), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if v := h.Look(); v.Usable != c.usable || !strings.Contains(v.Why, c.why) || !v.Usable && v.Hint == "" {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}
