package lab

import (
	"regexp"
	"testing"
)

func TestImageName(t *testing.T) {
	base := imageName("sha256:aa", []string{"udev", "dbus"})
	if !regexp.MustCompile(`^lab-[0-9a-f]{12}$`).MatchString(base) {
		t.Errorf("name %q", base)
	}
	if got := imageName("sha256:aa", []string{"dbus", "udev"}); got != base {
		t.Errorf("another order of the packages makes another image: %s, %s", got, base)
	}
	for what, got := range map[string]string{
		"kernel":          imageName("sha256:ab", []string{"udev", "dbus"}),
		"more packages":   imageName("sha256:aa", []string{"udev", "dbus", "kmod"}),
		"fewer packages":  imageName("sha256:aa", []string{"udev"}),
		"joined packages": imageName("sha256:aa", []string{"udevdbus"}),
	} {
		if got == base {
			t.Errorf("another image has the same name: %s", what)
		}
	}
}
