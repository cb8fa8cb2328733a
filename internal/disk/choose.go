package disk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"banger/internal/vm"
)

// Auto is the word for "the best that works here".
const Auto = "auto"

// order is best first: shared blocks and no layer in the way of I/O; a layer in QEMU; a layer in the kernel; no sharing.
var order = []string{"reflink", "qcow2", "dmsnap", "copy"}

// Choose picks the driver for a new VM, and says why for people. want is Auto ("" too) or a driver's name. Under Auto
// it is the best of drivers that suits the VMM and works between the two directories; a named driver has to be that
// itself. Errors: vm.CodeInvalid for a driver that is unknown or does not suit the VMM, CodeMissing for one that does
// not work on this host.
func Choose(ctx context.Context, drivers []Driver, want, vmmName, imageDir, vmDir string) (Driver, string, error) {
	if want == "" || want == Auto {
		return chooseBest(ctx, drivers, vmmName, imageDir, vmDir)
	}
	d, err := named(drivers, want, vmmName)
	if err != nil {
		return nil, "", err
	}
	if err := try(ctx, d, imageDir, vmDir); err != nil {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		return nil, "", vm.Errorf(vm.CodeMissing, "%s disks do not work here: %w", want, err).WithHint("leave the disk driver at %s", Auto)
	}
	return d, "asked for", nil
}

func named(drivers []Driver, want, vmmName string) (Driver, error) {
	i := slices.IndexFunc(drivers, func(d Driver) bool { return d.Name() == want })
	if i < 0 {
		return nil, vm.Errorf(vm.CodeInvalid, "no disk driver %q", want).WithHint("use one of %s", names(drivers))
	}
	if !drivers[i].Suits(vmmName) {
		return nil, vm.Errorf(vm.CodeInvalid, "%s does not take %s disks", vmmName, want).WithHint("leave the disk driver at %s", Auto)
	}
	return drivers[i], nil
}

func chooseBest(ctx context.Context, drivers []Driver, vmmName, imageDir, vmDir string) (Driver, string, error) {
	var passed []string // the better ones, and why they were passed over
	var errs []error
	for _, name := range order {
		i := slices.IndexFunc(drivers, func(d Driver) bool { return d.Name() == name })
		if i < 0 || !drivers[i].Suits(vmmName) {
			continue
		}
		err := try(ctx, drivers[i], imageDir, vmDir)
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		if err == nil {
			return drivers[i], strings.Join(append([]string{"best that works here"}, passed...), "; "), nil
		}
		passed = append(passed, "not "+name+": "+err.Error())
		errs = append(errs, err)
	}
	return nil, "", vm.Errorf(vm.CodeMissing, "no disk driver works for %s between %s and %s: %w", vmmName, imageDir, vmDir, errors.Join(errs...))
}

func names(drivers []Driver) string {
	s := []string{Auto}
	for _, d := range drivers {
		s = append(s, d.Name())
	}
	return strings.Join(s, ", ")
}
