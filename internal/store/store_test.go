package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/act"
	"banger/internal/vm"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func record(id vm.ID, name string) vm.VMRecord {
	return vm.VMRecord{
		ID: id, Name: name, State: vm.StateStopped, Want: vm.WantStopped, Generation: 1,
		Image: "debian-bookworm", ImageDigest: "sha256:aa", Kernel: "k", KernelDigest: "sha256:bb",
		VMM: "qemu", Disk: "qcow2", Network: "user", CreatedAt: time.Unix(1700000000, 123).UTC(),
		Spec:    vm.Spec{VCPU: 2, MemoryMiB: 512, DiskSize: 8 << 30, VMM: "auto", Disk: "auto", Network: "auto", Env: []string{"A=b"}},
		Runtime: vm.VMRuntime{State: vm.StateStopped, VMDir: "/v/" + string(id), DNSName: name + ".vm"},
	}
}

func TestRecordRoundtrip(t *testing.T) {
	s := open(t)
	want := record("0123456789ab", "web")
	if _, err := s.CreateVM(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := s.VM(t.Context(), want.ID)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestNamesAreUnique(t *testing.T) {
	s := open(t)
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	_, err := s.CreateVM(t.Context(), record("0123456789ac", "web"))
	if vm.CodeOf(err) != vm.CodeExists || vm.HintOf(err) == "" {
		t.Errorf("a taken name: %v (code %s)", err, vm.CodeOf(err))
	}
}

func TestChange(t *testing.T) {
	s := open(t)
	for id, name := range map[vm.ID]string{"0123456789ab": "web", "0123456789ac": "db"} {
		if _, err := s.CreateVM(t.Context(), record(id, name)); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(id vm.ID, name string) error {
		_, err := s.Change(t.Context(), id, func(r *vm.VMRecord) error { r.Name = name; return nil })
		return err
	}
	if err := rename("0123456789ab", "db"); vm.CodeOf(err) != vm.CodeExists {
		t.Errorf("to a taken name: %v", err)
	}
	if err := rename("0123456789ab", "mail"); err != nil {
		t.Error(err)
	}
	if r, err := s.VMByRef(t.Context(), "mail"); err != nil || r.ID != "0123456789ab" || r.Generation != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	refused := errors.New("no")
	if _, err := s.Change(t.Context(), "0123456789ab", func(r *vm.VMRecord) error { r.Name = "x"; return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	if _, err := s.VMByRef(t.Context(), "mail"); err != nil {
		t.Errorf("after a change that was refused: %v", err)
	}
	if err := rename("ffffffffffff", "x"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("of none: %v", err)
	}
	if _, err := s.SetWant(t.Context(), "0123456789ab", vm.WantGone, vm.StateRemoving); err != nil {
		t.Fatal(err)
	}
	if err := rename("0123456789ab", "x"); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("of one that goes: %v", err)
	}
}

// What cannot be read is neither changed nor lost.
func TestChangeOfADamagedSpec(t *testing.T) {
	s := open(t)
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	exec(t, s.db, `UPDATE vms SET spec = '{'`)
	_, err := s.Change(t.Context(), "0123456789ab", func(r *vm.VMRecord) error { r.Spec.VCPU = 7; return nil })
	if vm.CodeOf(err) != vm.CodeCorrupt || vm.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if _, err := s.Change(t.Context(), "0123456789ab", func(r *vm.VMRecord) error { r.Name = "mail"; return nil }); err != nil {
		t.Errorf("the name alone: %v", err)
	}
	var spec string
	if err := s.db.QueryRow(`SELECT spec FROM vms WHERE name = 'mail'`).Scan(&spec); err != nil || spec != "{" {
		t.Errorf("%q, %v", spec, err)
	}
}

func TestReferences(t *testing.T) {
	s := open(t)
	for id, name := range map[vm.ID]string{"0123456789ab": "web", "0123fff00000": "db", "ffffffffffff": "a_b"} {
		if _, err := s.CreateVM(t.Context(), record(id, name)); err != nil {
			t.Fatal(err)
		}
	}
	for ref, want := range map[string]string{"web": "web", "0123456789ab": "web", "01234": "web", "0123f": "db", "f": "a_b"} {
		if r, err := s.VMByRef(t.Context(), ref); err != nil || r.Name != want {
			t.Errorf("%q: %s, %v; want %s", ref, r.Name, err, want)
		}
	}
	for ref, want := range map[string]vm.Code{"": vm.CodeNotFound, "0123": vm.CodeInvalid, "%": vm.CodeNotFound, "_": vm.CodeNotFound, "nope": vm.CodeNotFound} {
		if _, err := s.VMByRef(t.Context(), ref); vm.CodeOf(err) != want {
			t.Errorf("%q: %v, want code %s", ref, err, want)
		}
	}
}

func TestIntentAndCommit(t *testing.T) {
	s, ctx := open(t), t.Context()
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(ctx, r); err != nil {
		t.Fatal(err)
	}
	r, err := s.SetWant(ctx, r.ID, vm.WantRunning, vm.StateStarting)
	if err != nil || r.Generation != 2 || r.State != vm.StateStarting {
		t.Fatalf("%+v, %v", r, err)
	}
	if again, err := s.SetWant(ctx, r.ID, vm.WantRunning, vm.StateStarting); err != nil || again.Generation != 2 {
		t.Errorf("the same intent again: generation %d, %v", again.Generation, err)
	}
	if _, err := s.Commit(ctx, r.ID, 1, func(r *vm.VMRecord) { r.Runtime.State = vm.StateRunning }); !errors.Is(err, ErrStale) {
		t.Errorf("a commit for an old intent: %v", err)
	}
	r, err = s.Commit(ctx, r.ID, 2, func(r *vm.VMRecord) { r.Runtime.Restarts, r.Runtime.RestartAt = 3, time.Unix(1800000000, 0) })
	if err != nil || r.Runtime.Restarts != 3 {
		t.Fatal(err)
	}
	r, err = s.SetWant(ctx, r.ID, vm.WantRunning, vm.StateStarting)
	if err != nil || r.Generation != 3 || r.Runtime.Restarts != 0 || !r.Runtime.RestartAt.IsZero() {
		t.Fatalf("a start of one that waits for its restart: %+v, %v", r, err)
	}
	r, err = s.Commit(ctx, r.ID, 3, func(r *vm.VMRecord) { r.Runtime.State, r.Runtime.LastError = vm.StateRunning, "x" })
	if err != nil || r.State != vm.StateRunning {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := s.DeleteVM(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VM(ctx, r.ID); err != nil {
		t.Errorf("a row that is not wanted gone was deleted: %v", err)
	}
	r, err = s.SetWant(ctx, r.ID, vm.WantGone, vm.StateRemoving)
	if err != nil || r.Runtime.LastError != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.SetWant(ctx, r.ID, vm.WantRunning, vm.StateStarting); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("a VM that is being removed was told to start: %v", err)
	}
	for range 2 {
		if err := s.DeleteVM(ctx, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.VM(ctx, r.ID); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("after the removal: %v", err)
	}
}

func TestOneBrokenRowHidesNoOther(t *testing.T) {
	s := open(t)
	for id, name := range map[vm.ID]string{"0123456789ab": "web", "0123456789ac": "db"} {
		if _, err := s.CreateVM(t.Context(), record(id, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.writes.Add(1) // the test writes behind the store's back
	if _, err := s.db.Exec(`UPDATE vms SET runtime = '{broken' WHERE name = 'web'`); err != nil {
		t.Fatal(err)
	}
	all, err := s.VMs(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for _, r := range all {
		if broken := r.State == vm.StateError; broken != (r.Name == "web") {
			t.Errorf("%s: state %s, error %q", r.Name, r.State, r.Runtime.LastError)
		}
	}
}

func TestABrokenRowCanBeRemoved(t *testing.T) {
	s := open(t)
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.writes.Add(1)
	if _, err := s.db.Exec(`UPDATE vms SET runtime = '{broken', spec = ''`); err != nil {
		t.Fatal(err)
	}
	if got, err := s.VM(t.Context(), r.ID); err != nil || got.State != vm.StateError || got.Name != "web" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.SetWant(t.Context(), r.ID, vm.WantGone, vm.StateRemoving); err != nil || got.Want != vm.WantGone {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.DeleteVM(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VM(t.Context(), r.ID); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestLibraryRoundtrip(t *testing.T) {
	s, ctx := open(t), t.Context()
	i := vm.Image{Name: "a", Digest: "sha256:1", Size: 5, CreatedAt: time.Unix(5, 0).UTC(), Init: "/sbin/init", Env: []string{"X=1"}, Source: "s"}
	k := vm.Kernel{Name: "k", Digest: "sha256:2", Release: "6.12", Version: "1", Size: 7, CreatedAt: time.Unix(6, 0).UTC(), Source: "t"}
	for range 2 { // putting again replaces
		if err := errors.Join(s.PutImage(ctx, i), s.PutKernel(ctx, k)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.ImageByName(ctx, "a"); err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.ImageByDigest(ctx, "sha256:1"); err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.KernelByName(ctx, "k"); err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.ImageByName(ctx, "b"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("absent image: %v", err)
	}
	if _, err := s.KernelByDigest(ctx, "sha256:9"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("absent kernel: %v", err)
	}
}

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

// No kernel fact may be stored: neither as a column, nor as a key of the stored JSON.
func TestSchemaHoldsNoKernelFact(t *testing.T) {
	s := open(t)
	var filled vm.VMRecord
	fill(reflect.ValueOf(&filled).Elem())
	filled.Want, filled.Runtime.State = vm.WantRunning, vm.StateRunning
	if _, err := s.CreateVM(t.Context(), filled); err != nil {
		t.Fatal(err)
	}
	forbidden := map[string]bool{"start_time": true, "boot_id": true, "cgroup": true}
	handles := reflect.TypeFor[vm.VMHandles]()
	for i := range handles.NumField() {
		key, _, _ := strings.Cut(handles.Field(i).Tag.Get("json"), ",")
		forbidden[key] = true
	}
	parts := []string{"pid", "tap", "loop", "dm_", "devmapper", "ifindex", "major", "minor"}
	check := func(where, key string) {
		if forbidden[key] {
			t.Errorf("%s: %q is a kernel fact", where, key)
		}
		for _, p := range parts {
			if key == p || strings.HasPrefix(key, p) && p != "pid" || strings.HasSuffix(key, "_"+p) {
				t.Errorf("%s: %q sounds like a kernel fact (%s)", where, key, p)
			}
		}
	}
	rows, err := s.db.Query(`SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns := 0
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		columns++
		check("table "+table, column)
	}
	if columns < 20 {
		t.Fatalf("looked at %d columns only", columns)
	}
	for _, column := range []string{"spec", "runtime"} {
		var keys []string
		q, err := s.db.Query(`SELECT j.key FROM vms, json_tree(vms.` + column + `) j WHERE j.key IS NOT NULL`)
		if err != nil {
			t.Fatal(err)
		}
		for q.Next() {
			var k sql.NullString
			if err := q.Scan(&k); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k.String)
		}
		q.Close()
		if len(keys) < 5 {
			t.Fatalf("column %s has %d keys only", column, len(keys))
		}
		for _, k := range keys {
			check("JSON in column "+column, k)
		}
	}
}

// fill sets every field to something, so that omitted ones show up too.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	}
}

func TestListIsNeverOlderThanAWrite(t *testing.T) {
	s, ctx := open(t), t.Context()
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(ctx, r); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 { // readers that fill the cache all the time
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := s.VMs(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		want := []vm.Want{vm.WantRunning, vm.WantStopped}[i%2]
		if _, err := s.SetWant(ctx, r.ID, want, vm.StateStopping); err != nil {
			t.Fatal(err)
		}
		all, err := s.VMs(ctx)
		if err != nil || len(all) != 1 || all[0].Want != want {
			t.Fatalf("write %d: %+v, %v", i, all, err)
		}
	}
	close(stop)
	wg.Wait()
	all, _ := s.VMs(ctx)
	all[0].Name = "changed by a caller"
	if again, _ := s.VMs(ctx); again[0].Name != "web" {
		t.Error("a caller changed the cache")
	}
}

// seer looks at the database at the moment at which a commit can be seen and its writer has not gone on.
type seer struct{ look func() }

func (s seer) Pass(label string) error {
	if strings.HasSuffix(label, ":rows:recorded") {
		s.look()
	}
	return nil
}

// TestListIsNoOlderThanALook: whoever has seen that a VM is gone must not find it in a list.
func TestListIsNoOlderThanALook(t *testing.T) {
	s := open(t)
	r := record("0123456789ab", "web")
	if _, err := s.CreateVM(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetWant(t.Context(), r.ID, vm.WantGone, vm.StateRemoving); err != nil {
		t.Fatal(err)
	}
	if all, err := s.VMs(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	looked := false
	ctx := act.Watch(t.Context(), seer{func() {
		looked = true
		_, err := s.VM(t.Context(), r.ID)
		all, lerr := s.VMs(t.Context())
		if vm.CodeOf(err) != vm.CodeNotFound || lerr != nil || len(all) != 0 {
			t.Errorf("looked for by itself: %v; listed: %v, %v", err, all, lerr)
		}
	}})
	if err := s.DeleteVM(ctx, r.ID); err != nil || !looked {
		t.Errorf("%v, looked: %v", err, looked)
	}
}

// What an idle daemon gave up is read anew.
func TestTheListIsForgotten(t *testing.T) {
	s := open(t)
	if _, err := s.CreateVM(t.Context(), record("0123456789ab", "web")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if all, err := s.VMs(t.Context()); err != nil || len(all) != 1 || s.list.Load() == nil {
			t.Errorf("%+v, %v", all, err)
		}
		s.forget()
		if s.list.Load() != nil {
			t.Error("it is kept")
		}
	}
	if !s.idle.Reset(time.Hour) {
		t.Error("nobody would give it up")
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
