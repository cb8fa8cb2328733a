// Package guestbin carries banger-guest, the static binary that is init and agent of every guest, inside bangerd.
//
// `make build` puts the binary into bin/ before it builds bangerd. The directory holds a README otherwise, so that
// every package compiles in a fresh clone; only Binary then has nothing to give. Nothing but internal/daemon may
// import this package: it adds megabytes to whoever does.
package guestbin

import (
	"embed"
	"errors"
	"io/fs"

	"banger/internal/vm"
)

//go:embed all:bin
var files embed.FS

const path = "bin/banger-guest"

// Binary returns the ELF image of banger-guest, a fresh copy each time. vm.CodeMissing when this program was built
// without it.
func Binary() ([]byte, error) {
	return read(files)
}

func read(from fs.FS) ([]byte, error) {
	b, err := fs.ReadFile(from, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, vm.Errorf(vm.CodeMissing, "bangerd was built without the guest binary").
			WithHint("build it with: make build")
	}
	if err != nil {
		return nil, vm.Errorf(vm.CodeInternal, "read the embedded guest binary: %w", err)
	}
	return b, nil
}
