package version

import (
	"runtime/debug"
	"testing"
)

func TestFromSettings(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	for _, c := range []struct {
		want     string
		settings []debug.BuildSetting
	}{
		{"dev", nil},
		{"dev-0123456789ab", []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}}},
		{"dev-0123456789ab+", []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}},
		{"dev-01", []debug.BuildSetting{{Key: "vcs.revision", Value: "01"}}},
	} {
		if got := fromSettings(c.settings); got != c.want {
			t.Errorf("fromSettings(%v) = %q, want %q", c.settings, got, c.want)
		}
	}
}

func TestTheLinkerSetsIt(t *testing.T) {
	defer func(old string) { Version = old }(Version)
	Version = "1.2.3"
	if got := String(); got != "1.2.3" {
		t.Errorf("String() = %q", got)
	}
}
