package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/paths"
	"banger/internal/vm"
)

// Where there are VMs there was a database: a new one would make orphans of them.
func TestALostDatabaseIsNoNewOne(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(path string) error
		dirs []string
		says string // of the refusal; empty = it opens
	}{
		"empty":                 {func(path string) error { return os.Truncate(path, 0) }, []string{"0123456789ab", "lost+found"}, "is empty"},
		"missing":               {os.Remove, []string{"0123456789ab"}, "is missing"},
		"empty, no VM":          {func(path string) error { return os.Truncate(path, 0) }, []string{"lost+found", ".probe"}, ""},
		"missing, no VM":        {os.Remove, nil, ""},
		"sound, with VMs in it": {func(string) error { return nil }, []string{"0123456789ab"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := paths.Under(t.TempDir())
			db, err := openDatabase(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			addVM(t, db, "0123456789ab")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.lose(p.Database()); err != nil {
				t.Fatal(err)
			}
			for _, d := range c.dirs {
				mkdir(t, filepath.Join(p.VMs(), d))
			}
			before, statErr := os.Stat(p.Database())
			db, err = openDatabase(t.Context(), p)
			if err == nil {
				_ = db.Close()
			}
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if vm.CodeOf(err) != vm.CodeCorrupt {
				t.Fatalf("%v (code %s)", err, vm.CodeOf(err))
			}
			for _, word := range []string{p.Database(), c.says, p.VMs(), "0123456789ab"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q is not in: %v", word, err)
				}
			}
			if hint := vm.HintOf(err); !strings.Contains(hint, "move "+p.VMs()+" away") || !strings.Contains(hint, "backup") {
				t.Errorf("hint %q", hint)
			}
			after, err := os.Stat(p.Database())
			if errors.Is(statErr, fs.ErrNotExist) != errors.Is(err, fs.ErrNotExist) || statErr == nil && !after.ModTime().Equal(before.ModTime()) {
				t.Errorf("the database was touched: %v, %v", after, err)
			}

			// As the hint says.
			if err := os.Rename(p.VMs(), p.VMs()+".old"); err != nil {
				t.Fatal(err)
			}
			db, err = openDatabase(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
		})
	}
}
