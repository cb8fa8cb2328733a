package dm

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/host/blockdev"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// target is what the kernel answers for one, padded to eight bytes.
func target(at int, kind, words string) []byte {
	size := (unix.SizeofDmTargetSpec + len(words) + 1 + 7) &^ 7
	s := unix.DmTargetSpec{Length: 8, Next: uint32(at + size)}
	copy(s.Target_type[:], kind)
	b, _ := binary.Append(nil, binary.NativeEndian, s)
	return append(append(b, words...), make([]byte, size-len(b)-len(words))...)
}

func TestParseTargets(t *testing.T) {
	one := target(0, "snapshot", "7:0 7:1 PO 8")
	two := append(slices.Clone(one), target(len(one), "error", "")...)
	for _, c := range []struct {
		data  []byte
		count int
		want  string
		ok    bool
	}{
		{nil, 0, "", true},
		{one, 1, "0 8 snapshot 7:0 7:1 PO 8", true},
		{two, 2, "0 8 snapshot 7:0 7:1 PO 8\n0 8 error", true},
		{one, 2, "", false},
		{one[:20], 1, "", false},
		{nil, 1, "", false},
	} {
		if got, err := parseTargets(c.data, c.count); got != c.want || (err == nil) != c.ok {
			t.Errorf("%d targets in %d bytes: %q %v, want %q", c.count, len(c.data), got, err, c.want)
		}
	}
}

// What the kernel refuses to an ordinary user, it refuses him always: no device is his.
func TestOrdinaryUsersHaveNone(t *testing.T) {
	for _, c := range []struct {
		err  error
		euid int
		want bool
	}{
		{&os.PathError{Op: "open", Path: "/dev/mapper/control", Err: unix.EACCES}, 1000, true},
		{unix.EACCES, 1000, true}, // of a call
		{unix.EPERM, 1000, true},
		{unix.EACCES, 0, false}, // root without its capabilities: there may be some
		{unix.EIO, 1000, false},
		{unix.ENXIO, 1000, false},
		{nil, 1000, false},
	} {
		err := forRoot(c.err, c.euid)
		if none(err) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v for user %d: none is %v (%v)", c.err, c.euid, none(err), err)
		}
	}
}

func name(next uint32, name string) []byte {
	b := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint64(nil, 64768), next)
	return append(append(b, name...), make([]byte, 24-12-len(name))...)
}

func TestParseNames(t *testing.T) {
	for _, c := range []struct {
		data []byte
		want string
		ok   bool
	}{
		{nil, "", true},
		{make([]byte, 24), "", true},
		{name(0, "a"), "a", true},
		{append(name(24, "a"), name(0, "banger-b")...), "a,banger-b", true},
		{name(24, "a"), "a", true},
		{name(4, "a"), "", false},
		{name(25, "a"), "", false},
		{name(0, "a")[:10], "", false},
	} {
		if got, err := parseNames(c.data); strings.Join(got, ",") != c.want || (err == nil) != c.ok {
			t.Errorf("%v: %q %v, want %q", c.data, got, err, c.want)
		}
	}
}

// TestFormatTarget holds that what is written is read as the same.
func TestFormatTarget(t *testing.T) {
	for _, table := range []string{"0 8 error", "0 65536 snapshot 7:0 7:1 PO 8"} {
		b, err := formatTarget(table)
		if err != nil || len(b)%8 != 0 {
			t.Errorf("%s: %d bytes, %v", table, len(b), err)
		}
		var spec unix.DmTargetSpec
		if _, err := binary.Decode(b, binary.NativeEndian, &spec); err != nil || int(spec.Next) != len(b) || b[len(b)-1] != 0 {
			t.Errorf("%s: the next target is at %d of %d bytes, which end with %d; %v", table, spec.Next, len(b), b[len(b)-1], err)
		}
		if got, err := parseTargets(b, 1); got != table || err != nil {
			t.Errorf("%s is read as %q, %v", table, got, err)
		}
	}
	for _, bad := range []string{"", "0", "0 8", "x 8 error", "0 -8 error", "0 8 a-name-of-sixteen"} {
		if _, err := formatTarget(bad); err == nil {
			t.Errorf("%q is a table", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(target(0, "snapshot", "7:0 7:1 PO 8"), 1)
	f.Add(append(name(24, "a"), name(0, "b")...), 2)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		_, _ = parseTargets(b, count)
		_, _ = parseNames(b)
	})
}

// TestNone holds that a host without device-mapper has no devices, rather than an error.
func TestNone(t *testing.T) {
	if _, err := os.Stat(dir + "/control"); err == nil {
		t.Skip("this host has device-mapper")
	}
	id := vm.NewID()
	_, there, err := Find(id)
	list, lerr := List()
	if there || list != nil || errors.Join(err, lerr, Remove(t.Context(), id), Suspend(t.Context(), id), Resume(t.Context(), id)) != nil {
		t.Errorf("%v %v %v %v", there, err, list, lerr)
	}
	if _, err := Ensure(t.Context(), id, "0 8 error"); vm.CodeOf(err) != vm.CodeMissing || vm.HintOf(err) == "" {
		t.Errorf("Ensure: %v", err)
	}
}

func newID(t *testing.T) vm.ID {
	t.Helper()
	testhost.Need(t, testhost.Root, testhost.DM)
	id := vm.NewID()
	testhost.Leaks(t, string(id))
	t.Cleanup(func() {
		if err := Remove(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	return id
}

func TestLife(t *testing.T) {
	id := newID(t)
	var d Device
	for _, table := range []string{"0 8 error", "0 8 error", "0 16 error", "0 16 zero"} { // with one other than before it is replaced
		var err error
		if d, err = Ensure(t.Context(), id, table); err != nil {
			if strings.HasSuffix(table, "zero") {
				t.Skipf("no zero target: %v", err)
			}
			t.Fatal(err)
		}
		if now, there, err := Find(id); err != nil || !there || now != d || d.Table != table || d.Suspended || !d.Loaded || d.Open != 0 {
			t.Errorf("made %+v, found %+v %v %v", d, now, there, err)
		}
		if n, err := blockdev.Number(d.Path); err != nil || n != d.Number {
			t.Errorf("node leads to %s %v, want %s", n, err, d.Number)
		}
	}
	if s, err := Status(id); err != nil || s != "0 16 zero" {
		t.Errorf("status %q %v", s, err)
	}
	list, err := List()
	if err != nil || !slices.ContainsFunc(list, func(l Device) bool { return l == d }) {
		t.Errorf("listed %+v %v, want %+v among them", list, err, d)
	}
	for _, c := range []struct {
		do        func(context.Context, vm.ID) error
		suspended bool
	}{{Suspend, true}, {Suspend, true}, {Resume, false}, {Resume, false}, {Suspend, true}} {
		if err := c.do(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if now, _, err := Find(id); err != nil || now.Suspended != c.suspended {
			t.Errorf("%+v %v, want suspended %v", now, err, c.suspended)
		}
	}
	for range 2 {
		if err := Remove(t.Context(), id); err != nil { // a suspended one
			t.Error(err)
		}
		if _, there, err := Find(id); there || err != nil {
			t.Errorf("found after Remove: %v", err)
		}
		if _, err := os.Lstat(d.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("node after Remove: %v", err)
		}
	}
}

// TestNode damages the kernel's node, as a container's /dev does that has none, and then the one that is made in its place.
func TestNode(t *testing.T) {
	id := newID(t)
	link := Link(id)
	damages := map[string]func(path string) error{
		"gone":         os.Remove,
		"another's":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) },
		"leads to air": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("../dm-999", path)) },
	}
	for what, damage := range damages {
		d, err := Ensure(t.Context(), id, "0 8 error")
		if err != nil {
			t.Fatal(err)
		}
		kernels := d.Path
		if err := damage(kernels); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d, err = Ensure(t.Context(), id, "0 8 error")
			if n, nerr := blockdev.Number(d.Path); err != nil || nerr != nil || n != d.Number || d.Path != link {
				t.Errorf("%s: %v, %s leads to %s %v, want %s", what, err, d.Path, n, nerr, d.Number)
			}
			if err := damage(link); err != nil {
				t.Fatal(err)
			}
		}
		if err := Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		for _, path := range []string{link, kernels} {
			if _, err := os.Lstat(path); path == link && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: node after Remove: %v", what, err)
			}
			_ = os.Remove(path) // what the damage has put in the kernel's place is not the kernel's to take away
		}
	}
	if err := os.WriteFile(link, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	if err := blockdev.EnsureNode(t.Context(), link, "253:99"); err == nil {
		t.Error("a file was replaced by a node")
	}
	if b, err := os.ReadFile(link); err != nil || string(b) != "file" {
		t.Errorf("file: %q %v", b, err)
	}
}

func TestBadTable(t *testing.T) {
	id := newID(t)
	if _, err := Ensure(t.Context(), id, "0 8 nonsense"); err == nil || !strings.Contains(err.Error(), `table "0 8 nonsense"`) {
		t.Errorf("%v, want the table that was refused", err)
	}
	if _, there, err := Find(id); there || err != nil {
		t.Errorf("a device is left: %v", err)
	}
}

// TestBusy wants to replace a device that is open.
func TestBusy(t *testing.T) {
	id := newID(t)
	d, err := Ensure(t.Context(), id, "0 8 error")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), id, "0 16 error"); vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "(pid ") {
		t.Errorf("Ensure with another table: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Remove(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- Remove(t.Context(), id) }()
	_ = f.Close()
	if err := <-removed; err != nil {
		t.Errorf("Remove while it was let go: %v", err)
	}
}

// TestTheirs never touches a device of our name without our mark, nor lists it.
func TestTheirs(t *testing.T) {
	id := newID(t)
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := exec.Command("dmsetup", "create", Name(id), "--table", "0 8 error").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _ = exec.Command("dmsetup", "remove", "--retry", Name(id)).Run() }()
	_, before := os.Stat(Link(id)) // where no udev runs there may be none
	if err := errors.Join(Remove(t.Context(), id), Suspend(t.Context(), id)); err != nil {
		t.Error(err)
	}
	if _, err := Ensure(t.Context(), id, "0 8 error"); vm.CodeOf(err) != vm.CodeExists {
		t.Errorf("Ensure: %v", err)
	}
	if list, err := List(); err != nil || slices.ContainsFunc(list, func(d Device) bool { return d.ID == id }) {
		t.Errorf("listed: %v %v", list, err)
	}
	if _, err := os.Stat(Link(id)); (err == nil) != (before == nil) {
		t.Errorf("their node: %v, before %v", err, before)
	}
	if out, err := exec.Command("dmsetup", "info", Name(id)).CombinedOutput(); err != nil {
		t.Errorf("their device: %v: %s", err, out)
	}
}
