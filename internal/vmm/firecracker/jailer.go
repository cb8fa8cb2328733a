package firecracker

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
)

// stamp tells a program that was replaced from the one that was looked at, without running it.
type stamp struct{ size, modTime int64 }

// jailerOf finds the jailer for a program.
func jailerOf(name, binary string) (path string, s stamp, err error) {
	if path, err = Program(name); err != nil {
		return "", s, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", s, vm.Errorf(vm.CodeMissing, "look at %s: %w", path, err)
	}
	if !strings.Contains(filepath.Base(binary), "firecracker") {
		return "", s, vm.Errorf(vm.CodeMissing, "use %s: the jailer takes only a program that has \"firecracker\" in its name", binary).
			WithHint("give it such a name (a link's own counts for nothing), or take it out of config.toml ([firecracker] binary)")
	}
	return path, stamp{fi.Size(), fi.ModTime().UnixNano()}, nil
}

// fits says why the jailer cannot start this Firecracker: it is none, or one of another release, whose arguments and jails
// are its own.
func fits(ctx context.Context, f findings) error {
	name, version, err := Version(ctx, f.Jailer)
	switch {
	case err != nil:
		return vm.Errorf(vm.CodeMissing, "%w", err).WithHint(jailerHint)
	case name != "Jailer":
		return vm.Errorf(vm.CodeMissing, "use %s: it says that it is %s", f.Jailer, name).WithHint(jailerHint)
	case version != f.Version:
		return vm.Errorf(vm.CodeMissing, "the jailer %s is version %s, %s is %s", f.Jailer, version, f.Binary, f.Version).WithHint(jailerHint)
	}
	return nil
}

const jailerHint = "name the jailer of the same release in config.toml ([firecracker] jailer), or none: banger vmm install firecracker brings its own"
