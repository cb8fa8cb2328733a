package places

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/cgroup"
	"banger/internal/host/file"
	"banger/internal/inventory"
	"banger/internal/sshkey"
	"banger/internal/testhost"
	"banger/internal/vm"
)

const id = vm.ID("00000000000c")

func placeIn(t *testing.T) inventory.Place {
	dir := testhost.Dir(t)
	p := inventory.Place{Root: dir, State: dir, Run: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache"), VMs: filepath.Join(dir, "vms"), Images: filepath.Join(dir, "images")}
	for _, d := range []string{p.Run, p.Cache, p.VMs, p.Images} {
		mkdir(t, d)
	}
	return p
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, age time.Duration) string {
	t.Helper()
	at := time.Now().Add(-age)
	if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
	return path
}

// list returns what the source's kinds of that name find, and the kind.
func list(t *testing.T, s Source, p inventory.Place, kind string) (found []inventory.Object, of inventory.Kind) {
	t.Helper()
	for _, k := range s.Kinds(p) {
		all, err := k.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			if o.Kind == kind {
				found, of = append(found, o), k
			}
		}
	}
	return found, of
}

func TestDirectories(t *testing.T) {
	testhost.Leaks(t)
	p := placeIn(t)
	theirs := t.TempDir()
	mkdir(t, p.Dir(id))
	mkdir(t, p.Sockets(id))
	write(t, filepath.Join(p.Dir(id), "work.ext4"), 0)
	write(t, filepath.Join(theirs, "disk"), 0)
	for _, other := range []string{"lost+found", "00000000000C", "00000000000c.old", ".00000000000c"} {
		mkdir(t, filepath.Join(p.VMs, other))
	}
	if err := os.Symlink(theirs, filepath.Join(p.VMs, "00000000000d")); err != nil { // a VM that somebody moved to another disk
		t.Fatal(err)
	}
	found, kind := list(t, Source{}, p, "VM's directory")
	if len(found) != 2 || found[0].Name != p.Dir(id) || found[0].VM != id || found[0].Proof == "" || !strings.Contains(found[0].Holds, "disks") || found[0].Run {
		t.Fatalf("%+v", found)
	}
	if found[1].Proof != "" || found[1].Doubt == "" {
		t.Errorf("a link: %+v", found[1])
	}
	if err := kind.Remove(t.Context(), found[1]); !errors.Is(err, inventory.ErrChanged) {
		t.Errorf("a link: %v", err)
	}
	sockets, skind := list(t, Source{}, p, "run directory")
	if len(sockets) != 1 || !sockets[0].Run || sockets[0].Holds != "" {
		t.Fatalf("%+v", sockets)
	}
	for range 2 {
		if err := errors.Join(kind.Remove(t.Context(), found[0]), skind.Remove(t.Context(), sockets[0])); err != nil {
			t.Error(err)
		}
	}
	left, _ := os.ReadDir(p.VMs)
	if run, _ := os.ReadDir(p.Run); len(left) != 5 || len(run) != 0 {
		t.Errorf("left %v, %v", left, run)
	}
	if _, err := os.Stat(filepath.Join(theirs, "disk")); err != nil {
		t.Error(err)
	}
}

// A directory in which somebody has mounted something stays, and so does what is mounted.
func TestMountsAreNeverTouched(t *testing.T) {
	testhost.Leaks(t)
	p := placeIn(t)
	at := filepath.Join(p.Dir(id), "theirs")
	mkdir(t, at)
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	kept := write(t, filepath.Join(at, "kept"), 0)
	found, kind := list(t, Source{}, p, "VM's directory")
	if err := kind.Remove(t.Context(), found[0]); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("%v, want one that names %s", err, at)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	mounted, kind := list(t, Source{}, p, "mount")
	if len(mounted) != 1 || mounted[0].Name != at || mounted[0].Proof != "" {
		t.Fatalf("%+v", mounted)
	}
	if err := kind.Remove(t.Context(), mounted[0]); err == nil {
		t.Error("a mount was removed")
	}
}

// keep are files in a VM's directory that are in use, or a person's.
var keep = []string{"handles.json", ".handles.json", "system", ".bashrc", "vmm.log",
	".work.ext4.bak", ".system-before-upgrade", ".system.tmp-", ".system.tmp-mine", ".known_hosts.swp", ".known_hosts2", ".known_hosts00012345", ".handles.json12345~",
	".ssh_host_ed25519_key.old", ".system12345", "x.system.tmp-91234"}

func TestScraps(t *testing.T) {
	p := placeIn(t)
	began := time.Now().Add(-time.Minute)
	mkdir(t, p.Dir(id))
	mkdir(t, filepath.Join(p.Cache, "initramfs"))
	var want []string
	for _, f := range []string{
		filepath.Join(p.Dir(id), ".handles.json1234567890"), filepath.Join(p.Dir(id), ".system.tmp-91234"), filepath.Join(p.Dir(id), ".work.ext4.tmp-91234"),
		filepath.Join(p.Dir(id), ".ssh_host_ed25519_key-91234"), filepath.Join(p.Dir(id), ".ssh_host_ed25519_key.pub9223372036854775807"),
		filepath.Join(p.Cache, ".probe.json71234"), filepath.Join(p.Cache, ".prove-12345.json"), filepath.Join(p.Cache, "initramfs", ".x.img12345"),
	} {
		want = append(want, write(t, f, time.Hour))
	}
	for _, f := range keep {
		write(t, filepath.Join(p.Dir(id), f), time.Hour)
	}
	for _, f := range []string{"probe.json", ".probe.json.swp", ".prove-it.json", ".prove-12345.json.bak", "initramfs/.x.img", "initramfs/.x.img.bak", "initramfs/.12345"} {
		write(t, filepath.Join(p.Cache, f), time.Hour)
	}
	young := write(t, filepath.Join(p.Dir(id), ".known_hosts12345"), 0)
	found, kind := list(t, Source{Began: began}, p, "half-written file")
	var got []string
	for _, o := range found {
		if o.Name == young {
			if o.Busy == "" {
				t.Error("what this daemon may be writing is no scrap")
			}
			continue
		}
		if !o.Scrap || o.Proof == "" || o.Busy != "" || (filepath.Dir(o.Name) == p.Dir(id)) != (o.VM == id) {
			t.Errorf("%+v", o)
		}
		got = append(got, o.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	for _, o := range found {
		if err := kind.Remove(t.Context(), o); (err == nil) == (o.Name == young) {
			t.Errorf("remove %s: %v", o.Name, err)
		}
	}
	if left, _ := os.ReadDir(p.Dir(id)); len(left) != len(keep)+1 {
		t.Errorf("left %v", left)
	}
}

// watcher looks at each point that is passed.
type watcher func()

func (w watcher) Pass(string) error { w(); return nil }

// A writer that names its half-written files otherwise would leave them for ever.
func TestScrapsAreWhatIsWritten(t *testing.T) {
	p := placeIn(t)
	mkdir(t, p.Dir(id))
	seen := 0
	look := watcher(func() {
		for dir, names := range (scraps{place: p}).written() {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if !strings.HasPrefix(e.Name(), ".") {
					continue
				}
				if seen++; !names.MatchString(e.Name()) {
					t.Errorf("%s in %s is none", e.Name(), dir)
				}
			}
		}
	})
	ctx := act.Watch(t.Context(), look)
	held := func(f *renameio.PendingFile, err error) error { // file.Write, whose one act is over before anybody can look
		if err == nil {
			look()
			err = f.Cleanup()
		}
		return err
	}
	for what, write := range map[string]func() error{
		"overlay": func() error {
			return file.Create(ctx, "x", filepath.Join(p.Dir(id), "system"), func(string) error { return nil })
		},
		"work disk": func() error {
			return file.Create(ctx, "x", filepath.Join(p.Dir(id), "work.ext4"), func(string) error { return nil })
		},
		"host key": func() error {
			_, err := sshkey.Ensure(ctx, filepath.Join(p.Dir(id), "ssh_host_ed25519_key"), "x")
			return err
		},
		"login key": func() error {
			_, err := sshkey.Ensure(ctx, filepath.Join(p.State, "ssh", "id_ed25519"), "x")
			return err
		},
		"pin":      func() error { return held(pending(filepath.Join(p.Dir(id), "known_hosts"))) },
		"public":   func() error { return held(pending(filepath.Join(p.Dir(id), "ssh_host_ed25519_key.pub"))) },
		"findings": func() error { return held(pending(filepath.Join(p.Cache, "probe.json"))) },
	} {
		before := seen
		if err := write(); err != nil || seen == before {
			t.Errorf("%s: %v, %d seen", what, err, seen-before)
		}
	}
}

func pending(path string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
}

// What a daemon writes is its own also when the clock was set back since it began, or forward.
func TestScrapsWithAClockThatJumps(t *testing.T) {
	began := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	const age = 10 * time.Minute
	for name, c := range map[string]struct{ now, want time.Time }{
		"as it was":   {began.Add(age), began},
		"set back":    {began.Add(age - time.Hour), began.Add(-time.Hour)},
		"set forward": {began.Add(age + time.Hour), began},
	} {
		if got := since(began, c.now, age); !got.Equal(c.want.Add(-slack)) {
			t.Errorf("%s: from %v on, want %v", name, got, c.want)
		}
	}
}

// A cgroup names a VM and no root: without another trace of the VM it may be another root's.
func TestCgroups(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Cgroup)
	testhost.Leaks(t, string(id))
	p := placeIn(t)
	s := Source{Cgroups: cgroup.Open()}
	if s.Cgroups == (cgroup.Tree{}) {
		t.Skip("needs a cgroup v2 hierarchy that may be written to")
	}
	dir, _, err := s.Cgroups.Ensure(t.Context(), id, cgroup.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Cgroups.Remove(t.Context(), id) })
	ours := func() inventory.Object {
		t.Helper()
		found, _ := list(t, s, p, "cgroup")
		i := slices.IndexFunc(found, func(o inventory.Object) bool { return o.VM == id })
		if i < 0 {
			t.Fatalf("no cgroup of VM %s in %+v", id, found)
		}
		return found[i]
	}
	_, kind := list(t, s, p, "cgroup")
	if o := ours(); o.Name != dir || o.Proof != "" || o.Doubt == "" {
		t.Errorf("without a trace: %+v", o)
	}
	if err := kind.Remove(t.Context(), ours()); !errors.Is(err, inventory.ErrChanged) {
		t.Errorf("without a trace: %v", err)
	}
	mkdir(t, p.Sockets(id))
	if o := ours(); o.Proof == "" || !o.Run {
		t.Errorf("with a trace: %+v", o)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := kind.Remove(t.Context(), ours()); err == nil {
		t.Error("a cgroup in which a process lives was removed")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 2 {
		if err := kind.Remove(t.Context(), inventory.Object{Kind: "cgroup", Name: dir, VM: id}); err != nil {
			t.Error(err)
		}
	}
}

// A daemon that begins clears away what an earlier one had not written to its end, however young it is, and nothing else.
func TestClear(t *testing.T) {
	p := placeIn(t)
	mkdir(t, p.Dir(id))
	scrap := write(t, filepath.Join(p.Dir(id), ".handles.json1234567890"), 0)
	for _, name := range keep {
		write(t, filepath.Join(p.Dir(id), name), time.Hour)
	}
	for range 2 {
		if err := Clear(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(scrap); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is left: %v", err)
		}
		if left, err := os.ReadDir(p.Dir(id)); err != nil || len(left) != len(keep) {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
