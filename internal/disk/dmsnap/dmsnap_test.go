package dmsnap

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/disk"
	"banger/internal/disk/disktest"
	"banger/internal/host/dm"
	"banger/internal/host/loop"
	"banger/internal/testhost"
	"banger/internal/vm"
)

var (
	_ disk.Driver = Driver{}
	_ disk.Guard  = Driver{}
)

func need(t *testing.T) {
	t.Helper()
	testhost.Need(t, testhost.Root, testhost.Loop, testhost.DM)
}

func TestSuite(t *testing.T) {
	need(t)
	disktest.Suite(t, testhost.Dir(t), func() disk.Driver { return New() })
}

func TestNoSpace(t *testing.T) {
	need(t)
	disktest.NoSpace(t, testhost.Dir(t), New())
}

// overlay names one of an image of size bytes that is all "base".
func overlay(t *testing.T, size int) disk.Overlay {
	t.Helper()
	need(t)
	dir := testhost.Dir(t)
	o := disk.Overlay{ID: string(vm.NewID()), Base: filepath.Join(dir, "image", "root.ext4"), Path: filepath.Join(dir, "vm", "system")}
	testhost.Leaks(t, o.ID, dir)
	for _, p := range []string{o.Base, o.Path} {
		if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(o.Base, bytes.Repeat([]byte("base"), size/4), 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := New().Remove(context.Background(), o); err != nil {
			t.Errorf("Remove after the test: %v", err)
		}
	})
	return o
}

func ensure(t *testing.T, o disk.Overlay) disk.Attached {
	t.Helper()
	a, err := New().Ensure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func put(t *testing.T, a disk.Attached, off int64, b []byte) error {
	t.Helper()
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}

func get(t *testing.T, a disk.Attached, off int64, n int) string {
	t.Helper()
	f, err := os.Open(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEveryStepOfACrash leaves what a daemon leaves that is killed after each step of Ensure, with content of an earlier
// life in the store, and goes on from there in both directions.
func TestEveryStepOfACrash(t *testing.T) {
	o := overlay(t, 1<<20)
	id := vm.ID(o.ID)
	if err := put(t, ensure(t, o), 4096, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	base := func() loop.Device {
		d, err := loop.Ensure(t.Context(), o.Base, true)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	cow := func() loop.Device {
		d, err := loop.Ensure(t.Context(), o.Path, false)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	device := func() {
		table := "0 2048 snapshot " + base().Number + " " + cow().Number + " PO 8"
		if _, err := dm.Ensure(t.Context(), id, table); err != nil {
			t.Fatal(err)
		}
	}
	steps := map[string]func(){
		"nothing attached": func() {},
		"image's loop":     func() { base() },
		"store's loop":     func() { cow() },
		"both loops":       func() { base(); cow() },
		"no table":         func() { base(); cow(); run(t, "dmsetup", "create", dm.Name(id), "--uuid", dm.UUID(id), "--notable") },
		"table not in use": func() {
			run(t, "dmsetup", "create", dm.Name(id), "--uuid", dm.UUID(id), "--notable")
			run(t, "dmsetup", "load", dm.Name(id), "--table", "0 2048 snapshot "+base().Number+" "+cow().Number+" PO 8")
		},
		"another table":     func() { run(t, "dmsetup", "create", dm.Name(id), "--uuid", dm.UUID(id), "--table", "0 8 error") },
		"all of it":         device,
		"link gone":         func() { device(); run(t, "rm", "-f", dm.Link(id)) },
		"link to another":   func() { device(); run(t, "ln", "-sf", "/dev/null", dm.Link(id)) },
		"frozen":            func() { device(); must(t, dm.Suspend(t.Context(), id)) },
		"half of a Detach":  func() { device(); must(t, dm.Remove(t.Context(), id)) },
		"unpublished store": func() { must(t, os.WriteFile(filepath.Dir(o.Path)+"/.system.tmp-1", nil, 0o600)) },
	}
	for name, leave := range steps {
		for _, then := range []string{"Ensure", "Detach"} {
			must(t, New().Detach(t.Context(), o))
			leave()
			if then == "Detach" {
				must(t, New().Detach(t.Context(), o))
				if left, err := dm.List(); err != nil || len(left) != 0 && left[0].ID == id {
					t.Errorf("%s: Detach left %v %v", name, left, err)
				}
			}
			if got := get(t, ensure(t, o), 4096, 4); got != "mine" {
				t.Errorf("%s, then %s: holds %q", name, then, got)
			}
		}
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBusy holds the device open: Detach must say who, leave it working, and succeed once it is let go.
func TestBusy(t *testing.T) {
	o := overlay(t, 1<<20)
	a := ensure(t, o)
	f, err := os.Open(a.Path)
	must(t, err)
	for _, undo := range []func(context.Context, disk.Overlay) error{New().Detach, New().Remove} {
		err := undo(t.Context(), o)
		if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "(pid ") || !strings.Contains(err.Error(), a.DMName) {
			t.Errorf("while it is open: %v (code %s)", err, vm.CodeOf(err))
		}
	}
	if again := ensure(t, o); again != a {
		t.Errorf("attached as %+v, before as %+v", again, a)
	}
	if got := get(t, a, 0, 4); got != "base" {
		t.Errorf("holds %q", got)
	}
	_ = f.Close()
	must(t, New().Detach(t.Context(), o))
}

// TestNameTaken puts somebody else's device in the way.
func TestNameTaken(t *testing.T) {
	o := overlay(t, 1<<20)
	name := dm.Name(vm.ID(o.ID))
	run(t, "dmsetup", "create", name, "--uuid", "theirs", "--table", "0 8 error")
	defer run(t, "dmsetup", "remove", "--retry", name)
	if _, err := New().Ensure(t.Context(), o); vm.CodeOf(err) != vm.CodeExists || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "theirs") {
		t.Errorf("Ensure: %v (code %s)", err, vm.CodeOf(err))
	}
	must(t, New().Remove(t.Context(), o))
	run(t, "dmsetup", "info", name)
	if _, err := os.Stat("/dev/mapper/" + name); err != nil {
		t.Errorf("their node: %v", err)
	}
}

// TestKilled kills a process that attaches and detaches without end, at moments of the clock's choosing.
func TestKilled(t *testing.T) {
	if path := os.Getenv("DMSNAP_TEST_PATH"); path != "" {
		o := disk.Overlay{ID: os.Getenv("DMSNAP_TEST_ID"), Base: os.Getenv("DMSNAP_TEST_BASE"), Path: path}
		for {
			_, _ = New().Ensure(t.Context(), o)
			_ = New().Detach(t.Context(), o)
		}
	}
	o := overlay(t, 1<<20)
	must(t, put(t, ensure(t, o), 4096, []byte("mine")))
	for n := range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "DMSNAP_TEST_PATH="+o.Path, "DMSNAP_TEST_ID="+o.ID, "DMSNAP_TEST_BASE="+o.Base)
		must(t, cmd.Start())
		ctx, cancel := context.WithTimeout(t.Context(), killAfter(n))
		<-ctx.Done()
		cancel()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if got := get(t, ensure(t, o), 4096, 4); got != "mine" {
			t.Fatalf("after kill %d it holds %q", n, got)
		}
	}
}
