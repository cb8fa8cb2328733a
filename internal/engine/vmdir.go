package engine

import (
	"io/fs"
	"os"

	"banger/internal/vm"
)

// ownDir refuses to delete a VM by a link that somebody put in the place of its directory (vm.CodeConflict): what it leads to
// is not proven to be the VM's, and who deletes the link alone leaves the VM's disks behind with nothing that names them.
func ownDir(r vm.VMRecord) error {
	dir := r.Runtime.VMDir
	fi, err := os.Lstat(dir)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return nil // what is no directory is told where it is removed
	}
	to, err := os.Readlink(dir)
	if err != nil {
		return nil // it has gone
	}
	return vm.Errorf(vm.CodeConflict, "delete VM %s: its directory %s is a link to %s, which banger did not make: nothing is deleted behind it", r.Name, dir, to).
		WithHint("move %s back to %s in place of the link, and delete the VM again; or remove the link alone: the VM then goes, and what is behind it stays, its disks too", to, dir)
}
