package kernel

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"

	"banger/internal/vm"
)

// bootModules are what an initramfs loads, where they are modules: first the disk's, so that a root can be mounted,
// then the network's. vsockModules come on top when the guest's channel is a vsock (loading costs some 50 ms each under
// emulation, so no others get them). A kernel that has a required one neither as a module nor built in cannot boot.
var (
	bootModules = []bootModule{
		{name: "virtio_mmio", required: true},
		{name: "virtio_pci"},
		{name: "virtio_blk", required: true},
		{name: "virtio_console"},
		{name: "crc32c_generic", with: "ext4"}, // which asks the crypto API for it by name: no dependency tells
		{name: "ext4", required: true},
		{name: "virtio_net"},
	}
	vsockModules = []bootModule{{name: "vmw_vsock_virtio_transport"}}
)

type bootModule struct {
	name     string
	required bool
	with     string // only needed when that one is a module
}

// modDeps is modules.dep: module names to files, and files to the files they need.
type modDeps struct {
	file map[string]string   // name → path below the module directory
	deps map[string][]string // path → paths, in the order modules.dep lists them: last is to be loaded first
}

// modName is the name the kernel knows a module file by: no directory, no suffix, '_' for '-'.
func modName(file string) string {
	plain, _, _ := moduleName(path.Base(file))
	return strings.ReplaceAll(strings.TrimSuffix(plain, ".ko"), "-", "_")
}

// parseModulesDep reads modules.dep(5): "PATH: PATH...", one line per module.
func parseModulesDep(r io.Reader) (modDeps, error) {
	d := modDeps{file: map[string]string{}, deps: map[string][]string{}}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			return modDeps{}, fmt.Errorf("modules.dep line %d: no colon", n)
		}
		for _, f := range append([]string{file}, strings.Fields(deps)...) {
			if _, _, ok := moduleName(f); !ok || path.Clean("/" + f)[1:] != f {
				return modDeps{}, fmt.Errorf("modules.dep line %d: %q is not the path of a module", n, f)
			}
		}
		d.file[modName(file)] = file
		d.deps[file] = strings.Fields(deps)
	}
	if err := s.Err(); err != nil {
		return modDeps{}, fmt.Errorf("read modules.dep: %w", err)
	}
	return d, nil
}

// parseBuiltin reads modules.builtin: the path of each module that is part of vmlinux.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			names[modName(line)] = true
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read modules.builtin: %w", err)
	}
	return names, nil
}

// loadOrder returns the files to load for want, dependencies first, without those in have. builtin is nil where a
// kernel came without its list: then nothing is required.
func (d modDeps) loadOrder(want []bootModule, builtin map[string]bool, have []string) ([]string, error) {
	seen := map[string]bool{}
	for _, f := range have {
		seen[f] = true
	}
	var order []string
	var load func(file string)
	load = func(file string) {
		if seen[file] {
			return // loaded, or a circle, which the kernel would refuse as well
		}
		seen[file] = true
		deps := d.deps[file]
		for i := len(deps) - 1; i >= 0; i-- {
			load(deps[i])
		}
		order = append(order, file)
	}
	for _, m := range want {
		file, isModule := d.file[m.name]
		switch {
		case builtin[m.name]:
		case m.with != "" && d.file[m.with] == "":
		case isModule:
			load(file)
		case m.required && builtin != nil:
			return nil, vm.Errorf(vm.CodeInvalid, "kernel has no %s, neither as a module nor built in", m.name).
				WithHint("use a kernel with virtio-mmio, such as Debian's cloud kernel")
		}
	}
	return order, nil
}
