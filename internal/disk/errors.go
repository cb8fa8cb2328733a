package disk

import (
	"errors"
	"fmt"
	"os"

	"banger/internal/host/file"
	"banger/internal/vm"
)

// FlattenError says that overlay o could not be written to a file: vm.CodeNoSpace when the disk is full, CodeNotFound when there
// is no overlay.
func FlattenError(o Overlay, err error) error {
	switch {
	case err == nil:
		return nil
	case file.NoSpace(err):
		return vm.Errorf(vm.CodeNoSpace, "flatten overlay %s: %w", o.Path, err).WithHint("free some space on the file system of %s", o.Base)
	case missing(o.Path):
		return vm.Errorf(vm.CodeNotFound, "flatten overlay %s: there is none: the VM was never started, or reset since", o.Path)
	case missing(o.Base):
		return vm.Errorf(vm.CodeNotFound, "flatten overlay %s: image file %s is gone", o.Path, o.Base)
	}
	return fmt.Errorf("flatten overlay %s: %w", o.Path, err)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// MakeError says that making overlay o failed: vm.CodeNoSpace when the disk is full, CodeNotFound when the image's file
// is gone. All drivers use it, so that callers need not know which one they have.
func MakeError(o Overlay, err error) error {
	if err == nil {
		return nil
	}
	if file.NoSpace(err) {
		return vm.Errorf(vm.CodeNoSpace, "make overlay %s: %w", o.Path, err).WithHint("free some space on the file system of %s", o.Path)
	}
	if missing(o.Base) {
		return vm.Errorf(vm.CodeNotFound, "make overlay %s: image file %s is gone: %w", o.Path, o.Base, err).
			WithHint("build or pull the image again")
	}
	return fmt.Errorf("make overlay %s: %w", o.Path, err)
}
