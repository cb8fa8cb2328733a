package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger/internal/vm"
)

func TestCorruptDatabaseIsRefusedAndKept(t *testing.T) {
	garbage := bytes.Repeat([]byte("this is no database "), 500)
	sound := filepath.Join(t.TempDir(), "sound.db")
	s, err := Open(t.Context(), sound)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := s.CreateVM(t.Context(), record(vm.ID(fmt.Sprintf("%012x", i)), fmt.Sprintf("n%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damaged, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < 3*4096; i++ {
		damaged[i] ^= 0x5a
	}
	for name, content := range map[string][]byte{"garbage": garbage, "damaged pages": damaged, "truncated": damaged[:6000]} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "banger.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), path)
			if vm.CodeOf(err) != vm.CodeCorrupt || !strings.Contains(err.Error(), path) || vm.HintOf(err) == "" {
				t.Errorf("error %v (code %s, hint %q)", err, vm.CodeOf(err), vm.HintOf(err))
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banger.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(`PRAGMA user_version = 999`); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := Open(t.Context(), path); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("a newer database: %v", err)
	}
}

func TestPrivateAndDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%20?.db") // characters that mean something in a URI
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	for range 6 { // every pooled connection, not one of them
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
					var got string
					if err := s.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
						t.Errorf("%s = %q, %v; want %q", pragma, got, err, want)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestConcurrentWriters(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := vm.ID(fmt.Sprintf("%012x", i))
			if _, err := s.CreateVM(context.Background(), record(id, fmt.Sprintf("n%d", i))); err != nil {
				t.Error(err)
			}
			for range 5 {
				for _, want := range []vm.Want{vm.WantRunning, vm.WantStopped} {
					if _, err := s.SetWant(context.Background(), id, want, vm.StateStopping); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	all, err := s.VMs(t.Context())
	if err != nil || len(all) != 8 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for _, r := range all {
		if r.Generation != 11 {
			t.Errorf("%s: generation %d, want 11: an update was lost", r.Name, r.Generation)
		}
	}
}

// TestCloseClosesAll: also the connection of a write that its caller gave up. Whoever copies the files after Close, or
// opens them, must not meet what is still being closed.
func TestCloseClosesAll(t *testing.T) {
	for range 200 {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		err := s.tx(ctx, "give up on", func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "CREATE TABLE given_up (x)"); err != nil {
				return err
			}
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the write says %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.path + "-shm"); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("somebody still has the database open (%v)", err)
		}
	}
}
