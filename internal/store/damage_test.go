package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// killed copies the files of a store that has written n rows and was not closed: what a kill leaves.
func killed(t *testing.T, n int) (path string) {
	t.Helper()
	s := open(t)
	for i := range n {
		if _, err := s.CreateVM(t.Context(), record(vm.ID(fmt.Sprintf("%012x", i)), fmt.Sprintf("n%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(t.TempDir(), "banger.db")
	for _, end := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(s.path + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// files are the contents of all files of a directory, but for the ballast.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// After a kill the rows lie in the -wal file. A refusal must not carry them over, nor delete anything.
func TestDamageAfterAKillIsKept(t *testing.T) {
	garbage := bytes.Repeat([]byte("x"), 100)
	write := func(path string, at int64, b []byte) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(b, at)
		return errors.Join(err, f.Close())
	}
	for name, c := range map[string]struct {
		code   vm.Code
		damage func(path string) error
	}{
		"a page in the -wal, and no -shm": {vm.CodeCorrupt, func(path string) error {
			s, err := Open(t.Context(), path) // a row that breaks the schema's promise is damage that every checksum passes
			if err != nil {
				return err
			}
			_, err = s.db.Exec(`PRAGMA writable_schema = on; UPDATE sqlite_master SET rootpage = 3 WHERE name = 'images'`)
			if err != nil {
				return err
			}
			for _, end := range []string{"", "-wal", "-shm"} { // as it is now, before Close
				b, err := os.ReadFile(path + end)
				if err == nil {
					err = os.WriteFile(path+end+".kill", b, 0o600)
				}
				if err != nil {
					return err
				}
			}
			err = s.Close()
			for _, end := range []string{"", "-wal", "-shm"} {
				err = errors.Join(err, os.Rename(path+end+".kill", path+end))
			}
			return errors.Join(err, os.Remove(path+"-shm"))
		}},
		"header, with an empty -wal": {vm.CodeCorrupt, func(path string) error {
			return errors.Join(write(path, 0, garbage), os.Truncate(path+"-wal", 0))
		}},
		"header, with a -wal that holds nothing": {vm.CodeCorrupt, func(path string) error {
			return errors.Join(write(path, 0, garbage), os.Truncate(path+"-wal", walHeader))
		}},
		"the -wal":             {vm.CodeCorrupt, func(path string) error { return write(path+"-wal", 0, garbage) }},
		"checksum of the -wal": {vm.CodeCorrupt, func(path string) error { return write(path+"-wal", 16, garbage[:8]) }},
		"an empty file":        {vm.CodeCorrupt, func(path string) error { return os.Truncate(path, 0) }},
		"only the -wal":        {vm.CodeCorrupt, func(path string) error { return errors.Join(os.Remove(path), os.Remove(path+"-shm")) }},
		"of a newer banger": {vm.CodeConflict, func(path string) error {
			s, err := Open(t.Context(), path)
			if err != nil {
				return err
			}
			_, err = s.db.Exec(`PRAGMA user_version = 999`)
			return errors.Join(err, s.Close())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := killed(t, 10)
			if err := c.damage(path); err != nil {
				t.Fatal(err)
			}
			before := files(t, filepath.Dir(path))
			for range 2 {
				s, err := Open(t.Context(), path)
				if err == nil {
					_ = s.Close()
				}
				if vm.CodeOf(err) != c.code || !strings.Contains(vm.HintOf(err), "nothing was changed") {
					t.Errorf("%v (code %s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
				}
			}
			after := files(t, filepath.Dir(path))
			for f := range before {
				if after[f] != before[f] {
					t.Errorf("%s was changed: %d bytes, %d before", f, len(after[f]), len(before[f]))
				}
			}
			if len(after) != len(before) {
				t.Errorf("files %d, before %d", len(after), len(before))
			}
		})
	}
}

// A sound one is taken up with all that its -wal file has.
func TestAKillLosesNothing(t *testing.T) {
	for _, shm := range []bool{true, false} {
		path := killed(t, 10)
		if !shm {
			if err := os.Remove(path + "-shm"); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if all, err := s.VMs(t.Context()); err != nil || len(all) != 10 {
			t.Errorf("%d records, %v", len(all), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A column that cannot be read costs nothing of the others, and keeps its text.
func TestABrokenColumn(t *testing.T) {
	for column, text := range map[string]string{
		"spec": `{"vcpu":`, "runtime": `{"vm_dir":`, "started_at": "yesterday", "created_at": "long ago",
	} {
		t.Run(column, func(t *testing.T) {
			s, ctx := open(t), t.Context()
			r := record("0123456789ab", "web")
			r.StartedAt = time.Unix(1700000001, 0).UTC()
			if _, err := s.CreateVM(ctx, r); err != nil {
				t.Fatal(err)
			}
			if _, err := s.db.Exec(`UPDATE vms SET `+column+` = ?`, text); err != nil {
				t.Fatal(err)
			}
			kept := func(when string) {
				t.Helper()
				var now string
				if err := s.db.QueryRow(`SELECT ` + column + ` FROM vms`).Scan(&now); err != nil || now != text {
					t.Errorf("%s: the text is %q, %v", when, now, err)
				}
			}
			got, err := s.VM(ctx, r.ID)
			if err != nil || got.State != vm.StateError || !strings.Contains(got.Runtime.LastError, column) {
				t.Fatalf("%+v, %v", got, err)
			}
			if column != "spec" && !reflect.DeepEqual(got.Spec, r.Spec) {
				t.Errorf("spec %+v", got.Spec)
			}
			if column != "runtime" && got.Runtime.VMDir != r.Runtime.VMDir {
				t.Errorf("runtime %+v", got.Runtime)
			}

			_, err = s.SetWant(ctx, r.ID, vm.WantRunning, vm.StateStarting)
			if vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(err.Error(), column) || !strings.Contains(vm.HintOf(err), "banger vm delete web") {
				t.Errorf("a start: %v (%s)", err, vm.HintOf(err))
			}
			kept("after a start")

			r, err = s.SetWant(ctx, r.ID, vm.WantGone, vm.StateRemoving)
			if err != nil {
				t.Fatal(err)
			}
			later := time.Now().Add(time.Hour)
			if _, err = s.Commit(ctx, r.ID, r.Generation, func(r *vm.VMRecord) {
				r.Runtime.Attempts, r.Runtime.RetryAt, r.Runtime.LastError = 3, later, "busy"
			}); err != nil {
				t.Fatal(err)
			}
			kept("after a removal that failed")
			// Else a removal would be tried again at once, for ever.
			got, err = s.VM(ctx, r.ID)
			if err != nil || got.State != vm.StateRemoving || got.Runtime.Attempts != 3 || !got.Runtime.RetryAt.Equal(later) || !strings.Contains(got.Runtime.LastError, "busy") {
				t.Errorf("%+v, %v", got, err)
			}
			if err := s.DeleteVM(ctx, r.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := s.VM(ctx, r.ID); vm.CodeOf(err) != vm.CodeNotFound {
				t.Error(err)
			}
		})
	}
}

// A VM that runs is seen to by its state: shown in error, it would be adopted again and again.
func TestABrokenRowOfARunningVM(t *testing.T) {
	s, ctx := open(t), t.Context()
	r := record("0123456789ab", "web")
	r.Want, r.Runtime.State = vm.WantRunning, vm.StateRunning
	if _, err := s.CreateVM(ctx, r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(`UPDATE vms SET spec = ''`); err != nil {
		t.Fatal(err)
	}
	if got, err := s.VM(ctx, r.ID); err != nil || got.State != vm.StateRunning || got.Runtime.LastError == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.SetWant(ctx, r.ID, vm.WantStopped, vm.StateStopping); err != nil || got.State != vm.StateStopping {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Commit(ctx, r.ID, r.Generation+1, func(r *vm.VMRecord) { r.Runtime.State = vm.StateStopped }); err != nil || got.State != vm.StateError {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBallast(t *testing.T) {
	s := open(t)
	if fi, err := os.Stat(filepath.Join(filepath.Dir(s.path), BallastName)); err != nil || fi.Size() != ballastSize || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if first, second := s.ballast.drop(t.Context(), 0), s.ballast.drop(t.Context(), 0); !first || !second {
		t.Error("whoever was at it before it was dropped has new room")
	}
	if s.ballast.drop(t.Context(), s.ballast.drops.Load()) {
		t.Error("it was dropped twice")
	}
	if _, err := os.Stat(s.ballast.path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.ballast.path); err != nil {
		t.Error(err)
	}
}
