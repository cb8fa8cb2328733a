package crashtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fillSource makes what a kernel and Firecracker are installed from: files that pass for them.
func fillSource(dir string) error {
	vmm, jailer := program(nil, []byte("firecracker")), program(nil, []byte("jailer"))
	sums := fmt.Sprintf("%x  firecracker\n%x  jailer\n", sha256.Sum256(vmm), sha256.Sum256(jailer))
	return errors.Join(
		os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "vmlinux"), Vmlinux(), 0o600),
		os.WriteFile(filepath.Join(dir, "firecracker"), vmm, 0o700), os.WriteFile(filepath.Join(dir, "jailer"), jailer, 0o700),
		os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums), 0o600),
	)
}
