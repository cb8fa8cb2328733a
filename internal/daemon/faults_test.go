package daemon_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/loop"
	"banger/internal/host/proc"
	"banger/internal/paths"
	"banger/internal/testhost"
)

// hold has the VM web run, and returns what fails the test unless its machine is still the same.
func (p place) hold(t *testing.T) (lives func(when string)) {
	t.Helper()
	p.run(t, "banger", "vm", "create", "--name", "web")
	p.run(t, "banger", "vm", "start", "web")
	p.answers(t, "web")
	id := p.machineOf(t, p.show(t, "web").VMRecord)
	return func(when string) {
		t.Helper()
		if !proc.Alive(id) {
			t.Fatalf("%s: the VM has ended", when)
		}
	}
}

// idle does what takes a file system that nobody uses. The kernel closes a daemon's files one by one: its log after its lock.
func idle(t *testing.T, do func() error) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // no event tells of it
		err := do()
		if errors.Is(err, unix.EBUSY) && time.Now().Before(end) {
			continue
		}
		must(t, err)
		return
	}
}

func says(t *testing.T, got string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("%q is not said, but %q", w, got)
		}
	}
}

// Another program holds the lock of the database for longer than is waited for.
func TestADatabaseThatIsLocked(t *testing.T) {
	t.Parallel()
	p := newStandInPlace(t)
	lives := p.hold(t)
	other, err := sql.Open("sqlite", "file:"+p.Database()+"?_txlock=immediate")
	must(t, err)
	defer func() { _ = other.Close() }()
	tx, err := other.BeginTx(t.Context(), nil)
	must(t, err)
	says(t, p.fails(t, "vm", "stop", "web"), "another program holds its lock", p.Database())
	lives("while it is locked")
	p.list(t)
	p.answers(t, "web")
	p.killDaemon(t)
	p.answers(t, "web") // what is only read needs no lock
	must(t, tx.Rollback())
	lives("when it is free again")
	p.run(t, "banger", "vm", "delete", "web")
}

// The file of the database cannot be written to.
func TestADatabaseThatIsReadOnly(t *testing.T) {
	testhost.Need(t, testhost.Root)
	p := newStandInPlace(t)
	lives := p.hold(t)
	p.run(t, "banger", "daemon", "stop")
	must(t, unix.Mount(p.Database(), p.Database(), "", unix.MS_BIND, ""))
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(p.Database(), unix.MNT_DETACH)
		}
	}()
	must(t, unix.Mount("", p.Database(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for range 2 {
		says(t, p.fails(t, "vm", "list"), p.Database(), "read-only file system", "hint: check the owner and mode")
	}
	lives("while it is read-only")
	mounted = false
	must(t, unix.Unmount(p.Database(), 0))
	p.answers(t, "web")
	lives("afterwards")
}

// The file system of all state is read-only, as the kernel makes one on which it found errors.
func TestAStateThatIsReadOnly(t *testing.T) {
	testhost.Need(t, testhost.Root)
	root := testhost.Dir(t)
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=512m,mode=700"))
	t.Cleanup(func() { idle(t, func() error { return unix.Unmount(root, 0) }) })
	p := standInPlaceIn(t, root)
	lives := p.hold(t)
	p.run(t, "banger", "daemon", "stop")
	idle(t, func() error { return unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") })
	for range 2 {
		says(t, p.fails(t, "vm", "list"), "read-only file system", p.Root)
	}
	lives("while it is read-only")
	must(t, unix.Mount("", root, "", unix.MS_REMOUNT, ""))
	p.answers(t, "web")
	lives("afterwards")
}

// The database was damaged while no daemon ran. It is kept as it is, and the VM until it is restored.
func TestADatabaseThatIsCorrupt(t *testing.T) {
	p := newStandInPlace(t)
	lives := p.hold(t)
	p.run(t, "banger", "daemon", "stop")
	sound, err := os.ReadFile(p.Database())
	must(t, err)
	for name, damaged := range map[string]string{
		"header":    "this is no database" + string(sound[19:]),
		"a page":    string(sound[:4096]) + strings.Repeat("\xff", 4096) + string(sound[8192:]),
		"truncated": string(sound[:len(sound)-5000]),
		"empty":     "",
	} {
		must(t, os.WriteFile(p.Database(), []byte(damaged), 0o600))
		says(t, p.fails(t, "vm", "list"), p.Database(), "nothing was changed")
		if now, err := os.ReadFile(p.Database()); err != nil || string(now) != damaged {
			t.Errorf("%s: the file was changed (%d bytes, were %d), %v", name, len(now), len(damaged), err)
		}
		lives(name)
	}
	must(t, os.WriteFile(p.Database(), sound, 0o600))
	p.answers(t, "web")
	lives("restored")
	p.run(t, "banger", "vm", "delete", "web")
}

// The database of a backup is put in place of one that knows a VM more. That VM's disks are kept, and its machine goes on, until
// somebody says otherwise.
func TestADatabaseThatIsOlder(t *testing.T) {
	p := newStandInPlace(t)
	lives := p.hold(t)
	p.run(t, "banger", "daemon", "stop")
	older, err := os.ReadFile(p.Database())
	must(t, err)
	p.run(t, "banger", "vm", "create", "--name", "since")
	p.run(t, "banger", "vm", "start", "since")
	since := p.show(t, "since")
	id := p.machineOf(t, since.VMRecord)
	p.run(t, "banger", "daemon", "stop")
	must(t, os.WriteFile(p.Database(), older, 0o600)) // in place: the file is as old as it was

	fix := []string{"doctor", "--leaks", "--fix", "--yes"}
	out, err := p.command(t, "banger", fix...).CombinedOutput()
	if err == nil {
		t.Error("nothing is kept")
	}
	says(t, string(out), "keep VM's directory "+since.Runtime.VMDir, "--fix --discard "+string(since.ID))
	for _, path := range []string{since.Runtime.SystemOverlay, since.Runtime.WorkDiskPath} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if !proc.Alive(id) {
		t.Error("its machine was ended")
	}
	says(t, p.fails(t, append(fix, "--discard", string(p.show(t, "web").ID))...), "nothing without a record", "banger vm delete")
	p.run(t, "banger", append(fix, "--discard", string(since.ID))...)
	if _, err := os.Stat(since.Runtime.VMDir); !os.IsNotExist(err) || proc.Alive(id) {
		t.Errorf("it was discarded, and is there: %v, its machine lives: %v", err, proc.Alive(id))
	}
	p.run(t, "banger", "doctor", "--leaks")

	// An image made since is kept as well, and told.
	p.run(t, "banger", "daemon", "stop")
	image := filepath.Join(p.Images(), strings.Repeat("3c", 32))
	must(t, os.Mkdir(image, 0o755))
	must(t, os.WriteFile(filepath.Join(image, "root.ext4"), []byte("disk"), 0o444))
	must(t, os.WriteFile(filepath.Join(image, "image.json"), []byte(`{"name":"golden","source":"VM since","digest":"sha256:`+filepath.Base(image)+`"}`), 0o444))
	out, _ = p.command(t, "banger", "doctor", "--leaks", "--fix").CombinedOutput() // it asks, and nobody can answer
	says(t, string(out), "remove image's directory "+image+", with image golden, made of VM since: ")
	p.run(t, "banger", fix...)
	if _, err := os.Stat(image); !os.IsNotExist(err) {
		t.Errorf("it is to be removed, and is there: %v", err)
	}
	lives("beside it")
	p.answers(t, "web")
}

// Somebody copied a root, for a backup, say, and uses the copy: the VMs in it are the original's, and stay so. One that was
// moved is served where its old path leads to it.
func TestARootThatIsCopied(t *testing.T) {
	p := newStandInPlace(t)
	lives := p.hold(t)
	p.run(t, "banger", "vm", "create", "--name", "idle")
	p.run(t, "banger", "daemon", "stop")
	other := filepath.Join(testhost.Dir(t), "r")
	copied := p
	copied.Paths, copied.env = paths.Under(other), append(slices.Clone(p.env), "BANGER_ROOT="+other)
	if out, err := exec.Command("cp", "-a", p.State, other).CombinedOutput(); err != nil { // sockets as well
		t.Fatalf("cp: %v: %s", err, out)
	}
	for _, args := range [][]string{{"vm", "list"}, {"vm", "stop", "web"}, {"vm", "delete", "web", "idle"}, {"doctor", "--leaks", "--fix", "--yes"}} {
		says(t, copied.fails(t, args...), "moved or copied", p.VMs(), "hint: ")
	}
	lives("beside its copy")
	p.answers(t, "web")
	if all := p.list(t); len(all) != 2 {
		t.Errorf("VMs %+v, want web and idle", all)
	}
	p.run(t, "banger", "vm", "delete", "web", "idle")
}

// The disk of all state is full: nothing new begins, what runs goes on, a daemon starts, VMs can be deleted; with room,
// all is as before.
func TestAStateOnAFullDisk(t *testing.T) {
	testhost.Need(t, testhost.Root, testhost.Loop, testhost.Ext4)
	disk, root := filepath.Join(testhost.Dir(t), "disk"), testhost.Dir(t)
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 512<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	dev, err := loop.Ensure(t.Context(), disk, false)
	must(t, err)
	t.Cleanup(func() { must(t, loop.Remove(context.Background(), disk)) })
	must(t, unix.Mount(dev.Path, root, "ext4", 0, ""))
	t.Cleanup(func() { idle(t, func() error { return unix.Unmount(root, 0) }) })
	p := standInPlaceIn(t, filepath.Join(root, "r"))
	lives := p.hold(t)
	p.run(t, "banger", "vm", "create", "--name", "idle")
	p.run(t, "banger", "vm", "create", "--name", "old")
	filler := filepath.Join(root, "filler")
	fill(t, root, filler)

	for _, args := range [][]string{{"vm", "create", "--name", "new"}, {"vm", "start", "idle"}, {"vm", "run", "--", "true"}} {
		says(t, p.fails(t, args...), "free", "hint: ")
	}
	p.answers(t, "web")
	p.killDaemon(t)
	fill(t, root, filler)
	p.answers(t, "web") // by a daemon that started on a full disk
	lives("on a full disk")
	p.run(t, "banger", "vm", "delete", "old")
	p.run(t, "banger", "vm", "stop", "web")
	must(t, os.Remove(filler))

	if all := p.list(t); len(all) != 2 {
		t.Errorf("VMs %+v, want web and idle", all)
	}
	for _, name := range []string{"web", "idle"} {
		p.run(t, "banger", "vm", "start", name)
		p.answers(t, name)
	}
	p.run(t, "banger", "vm", "delete", "web", "idle")
}

// fill leaves no room on a disk but for less than a page.
func fill(t *testing.T, dir, filler string) {
	t.Helper()
	f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer func() { _ = f.Close() }()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	have, err := f.Stat()
	must(t, err)
	size := have.Size()
	for step := int64(st.Bavail) * st.Bsize; step >= 4096; {
		if unix.Fallocate(int(f.Fd()), 0, size, step) != nil {
			step /= 2
			continue
		}
		size += step
	}
}

// Somebody tidied up /run under a daemon that serves.
func TestARuntimeDirectoryThatIsRemoved(t *testing.T) {
	t.Parallel()
	p := newStandInPlace(t)
	lives := p.hold(t)
	var before, after struct{ PID int }
	status(t, p, &before)
	_ = os.RemoveAll(p.Run) // the daemon is there with another socket before the directory is empty, as like as not
	if _, err := os.Stat(filepath.Dir(p.show(t, "web").Runtime.APISockPath)); err == nil {
		t.Fatal("the directory of the VM's sockets is left")
	}
	p.list(t)
	if status(t, p, &after); before != after {
		t.Errorf("daemon %d serves, %d did", after.PID, before.PID)
	}
	lives("without its directory")
	p.run(t, "banger", "vm", "exec", "web", "--", "true") // over the session that there is
	p.run(t, "banger", "daemon", "stop")
	says(t, p.fails(t, "vm", "exec", "web", "--", "true"), "was removed", "banger vm restart web") // another daemon has none, until the VM is started anew
	p.run(t, "banger", "vm", "stop", "web")
	p.run(t, "banger", "vm", "start", "web")
	p.answers(t, "web")
	p.run(t, "banger", "vm", "delete", "web")
}
