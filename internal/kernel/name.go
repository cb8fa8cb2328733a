package kernel

import (
	"path/filepath"
	"strings"

	"banger/internal/catalog"
	"banger/internal/vm"
)

// nameFor is the name of a kernel that was given none: after its source.
func nameFor(source string) string {
	switch kind, rest, _ := strings.Cut(source, ":"); {
	case source == DefaultSource:
		return vm.DefaultKernel
	case kind == "apt", kind == "installed" && rest != "":
		return catalog.NameOf(rest)
	case kind == "installed":
		return "installed"
	}
	base := strings.TrimSuffix(filepath.Base(source), ".deb")
	name, _, _ := strings.Cut(base, "_") // of PACKAGE_VERSION_ARCH.deb
	return catalog.NameOf(name)
}
