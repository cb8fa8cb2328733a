package testhost

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A root that is given is copied as it is: what is never written to by links, what is by its content.
func TestSeedFromARoot(t *testing.T) {
	given, root := t.TempDir(), filepath.Join(t.TempDir(), "r")
	files := []string{"banger.db", "images/ab/root.ext4", "kernels/cd/vmlinux", "cache/firecracker.json"}
	for _, name := range files {
		path := filepath.Join(given, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed := exec.Command(filepath.Join(Repo(t), "scripts", "test-root"), "seed", root)
	seed.Env = append(os.Environ(), SeedVar+"="+given)
	if out, err := seed.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range files {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	was, err := os.Stat(filepath.Join(given, "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	is, err := os.Stat(filepath.Join(root, "banger.db"))
	if err != nil || os.SameFile(was, is) {
		t.Errorf("the database is shared, or not there: %v", err)
	}
}
