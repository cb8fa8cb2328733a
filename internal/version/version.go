// Package version tells which build this is. CLI, daemon and guest agent report it; it decides nothing.
package version

import "runtime/debug"

// Version is set by the build: -ldflags "-X banger/internal/version.Version=1.2.3".
var Version = ""

// String returns Version, else "dev-<commit>" as the Go tool recorded it ("+" marks uncommitted changes), else "dev".
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	return fromSettings(info.Settings)
}

func fromSettings(settings []debug.BuildSetting) string {
	var revision, dirty string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	if revision == "" {
		return "dev"
	}
	return "dev-" + revision + dirty
}
