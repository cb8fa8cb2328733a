package crashtest

import (
	"archive/tar"
	"bytes"
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
		os.WriteFile(filepath.Join(dir, "root.tar"), rootTar(), 0o600), os.WriteFile(filepath.Join(dir, "root.ext4"), superblock(), 0o600),
		os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums), 0o600),
	)
}

// rootTar is a root file system as far as its importer looks.
func rootTar() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755})
	_ = w.Close() // into memory
	return b.Bytes()
}

// superblock is a file system of 4 KiB as far as its importer looks.
func superblock() []byte {
	b := make([]byte, 4096)
	b[1024+4], b[1024+0x18] = 1, 2
	copy(b[1024+0x38:], "\x53\xef")
	return b
}
