package store

import (
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

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
	for ref, want := range map[string]string{"wbe": "did you mean web? banger vm list shows all", "a-b": "did you mean a_b? banger vm list shows all", "nope": "banger vm list shows all"} {
		if _, err := s.VMByRef(t.Context(), ref); vm.CodeOf(err) != vm.CodeNotFound || vm.HintOf(err) != want {
			t.Errorf("%q: %v, hint %q, want %q", ref, err, vm.HintOf(err), want)
		}
	}
}

func TestMistypedImagesAndKernels(t *testing.T) {
	s, ctx := open(t), t.Context()
	if err := errors.Join(s.PutImage(ctx, vm.Image{Name: "tools", Digest: "sha256:aa"}), s.PutKernel(ctx, vm.Kernel{Name: "mine", Digest: "sha256:bb"})); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"tolos": "did you mean tools? banger image list shows all", "mine": "banger image list shows all"} {
		if _, err := s.ImageByName(ctx, name); vm.CodeOf(err) != vm.CodeNotFound || vm.HintOf(err) != want {
			t.Errorf("image %q: %v, hint %q, want %q", name, err, vm.HintOf(err), want)
		}
	}
	for name, want := range map[string]string{"mien": "did you mean mine? banger kernel list shows all", "tools": "banger kernel list shows all"} {
		if _, err := s.KernelByName(ctx, name); vm.CodeOf(err) != vm.CodeNotFound || vm.HintOf(err) != want {
			t.Errorf("kernel %q: %v, hint %q, want %q", name, err, vm.HintOf(err), want)
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
