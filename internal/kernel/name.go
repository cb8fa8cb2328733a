package kernel

import (
	"path/filepath"
	"regexp"
	"strings"

	"banger/internal/vm"
)

// nameFor is the name of a kernel that was given none: after its source.
func nameFor(source string) string {
	switch kind, rest, _ := strings.Cut(source, ":"); {
	case source == DefaultSource:
		return vm.DefaultKernel
	case kind == "apt", kind == "installed" && rest != "":
		return sanitize(rest)
	case kind == "installed":
		return "installed"
	}
	base := strings.TrimSuffix(filepath.Base(source), ".deb")
	name, _, _ := strings.Cut(base, "_") // of PACKAGE_VERSION_ARCH.deb
	return sanitize(name)
}

var unusable = regexp.MustCompile(`[^a-z0-9._-]+`)

// sanitize makes s a usable name, as far as that is possible.
func sanitize(s string) string {
	s = unusable.ReplaceAllString(strings.ToLower(s), "-")
	if len(s) > 63 {
		s = s[:63]
	}
	return strings.Trim(s, "._-")
}
