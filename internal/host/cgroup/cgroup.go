// Package cgroup is the thin hand on cgroup v2 directories, one per VM, so that a machine belongs to no login session or
// service that its daemon happened to be started from, and takes no more of the host than it was given. It decides nothing.
package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/vm"
)

// Tree is a mounted cgroup v2 hierarchy that this process may make directories in. The zero Tree has none: it makes and
// removes nothing.
type Tree struct {
	mount string
}

// prefix marks our directories; the VM's id follows.
const prefix = "banger-"

// Open finds the hierarchy, also where v1 is mounted beside it. The zero Tree when there is none, or it is not ours to
// write to (an ordinary user, a container).
func Open() Tree {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Tree{}
	}
	defer func() { _ = f.Close() }()
	mount := find(f)
	if mount == "" || unix.Access(mount, unix.W_OK) != nil {
		return Tree{}
	}
	return Tree{mount}
}

// find takes the first cgroup2 mount point out of mountinfo (proc(5): fields, " - ", file system type, …).
func find(mountinfo io.Reader) string {
	for s := bufio.NewScanner(mountinfo); s.Scan(); {
		fields, rest, ok := strings.Cut(s.Text(), " - ")
		f := strings.Fields(fields)
		if ok && len(f) > 4 && strings.HasPrefix(rest, "cgroup2 ") {
			return f[4]
		}
	}
	return ""
}

// Path is the directory of a VM by rule; empty when there is no hierarchy.
func (t Tree) Path(id vm.ID) string {
	if t.mount == "" {
		return ""
	}
	return filepath.Join(t.mount, prefix+string(id))
}

// Limits are what all processes of a VM together may take; 0 = no limit.
type Limits struct {
	Memory int64 // bytes, the page cache of its files included
	CPUs   int   // as many processors' time
}

// period is that of the processor limit, in microseconds: the kernel's default.
const period = 100000

// Ensure makes the VM's directory with these limits and returns its path; empty when there is no hierarchy. A limit
// whose controller the hierarchy lacks (v1 has it, or a container was not given it) is none: limited says whether all hold.
func (t Tree) Ensure(ctx context.Context, id vm.ID, l Limits) (dir string, limited bool, err error) {
	dir = t.Path(id)
	if dir == "" {
		return "", l == Limits{}, nil
	}
	err = act.Do(ctx, "cgroup", func() error { return ignore(os.Mkdir(dir, 0o755), fs.ErrExist) })
	if err != nil {
		return "", false, fmt.Errorf("make cgroup %s: %w", dir, err)
	}
	memory, cpu := "max", "max"
	if l.Memory > 0 {
		memory = strconv.FormatInt(l.Memory, 10)
	}
	if l.CPUs > 0 {
		cpu = strconv.Itoa(l.CPUs * period)
	}
	limited = true
	for _, c := range []struct{ controller, file, value string }{
		{"memory", "memory.max", memory}, {"memory", "memory.swap.max", swapOf(l)}, {"cpu", "cpu.max", cpu + " " + strconv.Itoa(period)},
	} {
		path := filepath.Join(dir, c.file)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // one by one: a hierarchy may have either
			_ = act.Do(ctx, "cgroup.controller", func() error {
				return os.WriteFile(filepath.Join(t.mount, "cgroup.subtree_control"), []byte("+"+c.controller), 0)
			})
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			limited = limited && (strings.HasPrefix(c.value, "max") || c.file == "memory.swap.max") // without swap there is no such file
			continue
		}
		err := act.Do(ctx, "cgroup.limit", func() error { return os.WriteFile(path, []byte(c.value), 0) })
		if err != nil {
			return dir, false, fmt.Errorf("set the limit %s of cgroup %s: %w", c.file, dir, err)
		}
	}
	return dir, limited, nil
}

// Lacks says why VMs cannot be held within limits here; empty when they can.
func (t Tree) Lacks() string {
	if t.mount == "" {
		return "there is no cgroup v2 hierarchy that this user may write to"
	}
	b, err := os.ReadFile(filepath.Join(t.mount, "cgroup.controllers"))
	if err != nil {
		return err.Error()
	}
	var lacks []string
	for _, controller := range []string{"memory", "cpu"} {
		if !slices.Contains(strings.Fields(string(b)), controller) {
			lacks = append(lacks, controller)
		}
	}
	if len(lacks) == 0 {
		return ""
	}
	return fmt.Sprintf("the cgroup v2 hierarchy in %s lacks the controllers: %s", t.mount, strings.Join(lacks, ", "))
}

// ignore makes success of one error: what was asked for is so already.
func ignore(err, none error) error {
	if errors.Is(err, none) {
		return nil
	}
	return err
}

// swapOf keeps a VM that has a limit from taking swap beside it.
func swapOf(l Limits) string {
	if l.Memory > 0 {
		return "0"
	}
	return "max"
}

// lastBreath is how long the kernel may take to count a process out that has ended: it does so a moment after its parent
// was told.
const lastBreath = 2 * time.Second

// Remove removes the VM's directory. Removing what is absent is success; one in which a process lives is an error.
func (t Tree) Remove(ctx context.Context, id vm.ID) error {
	dir := t.Path(id)
	if dir == "" {
		return nil
	}
	err := act.Do(ctx, "cgroup.remove", func() error {
		err := unix.Rmdir(dir)
		if errors.Is(err, unix.EBUSY) {
			if err = awaitEmpty(dir, lastBreath); err == nil {
				err = unix.Rmdir(dir)
			}
		}
		return ignore(err, unix.ENOENT)
	})
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove cgroup %s: %w%s", dir, err, t.strangers(dir))
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// strangers tells of what keeps a cgroup whose VM has ended: processes that somebody else put there, and how to go on.
// They are nobody's to kill.
func (t Tree) strangers(dir string) string {
	var all []string
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, pid := range strings.Fields(string(b)) {
		name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		all = append(all, fmt.Sprintf("%s (%s)", pid, bytes.TrimSpace(name)))
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf(": others' processes are in it: %s; end them, or move each elsewhere: echo PID >%s", strings.Join(all, ", "), filepath.Join(t.mount, "cgroup.procs"))
}

// awaitEmpty waits until no process is in the cgroup; EBUSY when one stays. cgroup.events is polled: the kernel tells
// each change of it (POLLPRI).
func awaitEmpty(dir string, most time.Duration) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 256)
	for end := time.Now().Add(most); ; {
		n, err := f.ReadAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if empty(buf[:n]) {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return unix.EBUSY
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// empty reads cgroup.events.
func empty(events []byte) bool { return bytes.Contains(events, []byte("populated 0")) }

// Empty says whether the VM has a directory with no process in it.
func (t Tree) Empty(id vm.ID) (bool, error) {
	events, err := os.ReadFile(filepath.Join(t.Path(id), "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) { // removed meanwhile
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into the cgroup of VM %s: %w", id, err)
	}
	return empty(events), nil
}

// List returns the VMs that have a directory.
func (t Tree) List() ([]vm.ID, error) {
	if t.mount == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(t.mount)
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var ids []vm.ID
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), prefix); ok && e.IsDir() {
			if id, err := vm.ParseID(name); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}
