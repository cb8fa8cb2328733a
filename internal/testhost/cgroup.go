package testhost

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// MakeCgroup makes a cgroup of that name, and removes it with the test. The test needs Cgroup.
func MakeCgroup(t testing.TB, name string) string {
	t.Helper()
	top, err := cgroupTop()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	return dir
}
