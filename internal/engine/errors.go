package engine

import (
	"errors"
	"syscall"

	"banger/internal/vm"
)

// noSpace gives "no space left" its code, wherever it came up.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return vm.Errorf(vm.CodeNoSpace, "%w", err).WithHint("free some space: banger vm list shows VMs that can be deleted")
	}
	return err
}
