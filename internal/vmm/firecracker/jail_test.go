package firecracker

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/testhost"
	"banger/internal/vmm"
)

// secrets are what no VMM may read, by their place as the engine lays them: the VM's host key beside its disks, and the key that
// opens all VMs.
func secrets(c vmm.Config) map[string][]byte {
	all := map[string][]byte{}
	for _, path := range []string{filepath.Join(c.Dir, "ssh_host_ed25519_key"), filepath.Join(c.Dir, "../../ssh/id_ed25519")} {
		all[path] = []byte("the secret of " + path + "\n")
	}
	return all
}

func keepSecrets(t *testing.T, c vmm.Config) {
	t.Helper()
	for path, secret := range secrets(c) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, secret, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// noSecret looks into every file of a jail for the machines' secrets, whatever the file is called and however it got there.
func noSecret(t *testing.T, root string, machines ...vmm.Config) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, c := range machines {
			for of, secret := range secrets(c) {
				if bytes.Contains(content, secret) {
					t.Errorf("%s holds what is in %s", path, of)
				}
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("looked into %d files of %s: %v", files, root, err)
	}
}

// What is put into a jail is no secret.
func TestJailHoldsNoSecret(t *testing.T) {
	testhost.Need(t, testhost.Root)
	dir := testhost.Dir(t)
	c := machine(t, dir, jailedUID)
	for _, shared := range []string{c.Kernel, c.Initramfs, c.Modules.Path} {
		if err := os.WriteFile(shared, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(jailBase(c.Ref()), "root")
	if _, err := furnish(t.Context(), root, c); err != nil {
		t.Fatal(err)
	}
	noSecret(t, root, c)
}
