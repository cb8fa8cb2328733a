package disk

import (
	"errors"
	"fmt"
	"os"

	"banger/internal/host/file"
	"banger/internal/vm"
)

// MakeError says that making overlay o failed: vm.CodeNoSpace when the disk is full, CodeNotFound when the image's file
// is gone. All drivers use it, so that callers need not know which one they have.
func MakeError(o Overlay, err error) error {
	if err == nil {
		return nil
	}
	if file.NoSpace(err) {
		return vm.Errorf(vm.CodeNoSpace, "make overlay %s: %w", o.Path, err).WithHint("free some space on the file system of %s", o.Path)
	}
	if _, statErr := os.Stat(o.Base); errors.Is(statErr, os.ErrNotExist) {
		return vm.Errorf(vm.CodeNotFound, "make overlay %s: image file %s is gone: %w", o.Path, o.Base, err).
			WithHint("build or pull the image again")
	}
	return fmt.Errorf("make overlay %s: %w", o.Path, err)
}
