package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// descriptorKinds counts what a process holds open, each descriptor by what it is of.
type descriptorKinds map[string]int

// atRest is the state of a root of which no VM runs.
const atRest = "at rest"

// connections is how many the daemon may have to its database, as it needed them: more are opened, and some are kept.
const connections = 4

// idleConnections is how many to an agent the daemon keeps for a minute where each is a socket of its own, as Firecracker's are:
// http.Transport.MaxIdleConnsPerHost of the agent's client.
const idleConnections = 2

// rememberHolds notes what a fresh daemon holds that has found the root as it is now.
func (m *matrix) rememberHolds(t *testing.T, state string) {
	t.Helper()
	b := m.with(t)
	_, _, _ = b.run(nil, "daemon", "stop")
	b.list() // starts one
	if state == running {
		b.untilAdopted(subject)
	}
	pid := b.daemonPID()
	least := kindsOf(t, pid)
	for range 10 { // what the answer to the last command still takes is none of it
		time.Sleep(10 * time.Millisecond)
		now := kindsOf(t, pid)
		maps.DeleteFunc(least, func(kind string, n int) bool {
			least[kind] = min(n, now[kind])
			return least[kind] == 0
		})
	}
	if state == running && testhost.Alone() {
		least["unix socket"] += idleConnections
	}
	m.holds[state] = least
	t.Logf("a fresh daemon holds, %s: %v", state, least)
}

// heldByTheDaemon holds a daemon that is quiet, or will be in a moment, against a fresh one with the same VM. It is not while
// the VM boots or is paused: somebody waits for its guest. One that runs must be reached.
func (m *matrix) heldByTheDaemon(t *testing.T, o operation) {
	t.Helper()
	b := m.with(t)
	state, ports := atRest, 0
	for _, v := range b.list() {
		switch v.State {
		case vm.StateStarting, vm.StatePaused:
			return
		case vm.StateRunning:
			state, ports = running, ports+len(v.Spec.Ports)
			b.untilAdopted(v.Name)
		}
	}
	pid := b.daemonPID()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		more := kindsOf(t, pid).minus(m.holds[state])
		delete(more, m.trace) // of one that is armed
		if more["tcp socket"] == ports {
			delete(more, "tcp socket")
		}
		if len(more) == 0 {
			return
		}
		if time.Now().After(end) {
			m.result(o).Leaked++
			t.Errorf("after %s, with the VM %s, the daemon holds beside what a fresh one does: %v", o.name, state, more)
			return
		}
	}
}

// minus is what d has more of.
func (d descriptorKinds) minus(other descriptorKinds) descriptorKinds {
	more := descriptorKinds{}
	for kind, n := range d {
		may := other[kind]
		if base := filepath.Base(kind); may > 0 && (base == "banger.db" || base == "banger.db-wal") {
			may = connections
		}
		if n > may {
			more[kind] = n - may
		}
	}
	return more
}

// kindsOf looks at a process's descriptors. What is deleted, and a process that has ended, is of a kind that nobody should
// hold.
func kindsOf(t testing.TB, pid int) descriptorKinds {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d descriptors in %s/fd, %v", len(entries), dir, err)
	}
	sockets := socketsOf(t, dir)
	kinds := descriptorKinds{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, "fd", e.Name()))
		info, infoErr := os.ReadFile(filepath.Join(dir, "fdinfo", e.Name()))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(infoErr, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err := errors.Join(err, infoErr); err != nil {
			t.Fatal(err)
		}
		kinds[kindOf(to, string(info), sockets)]++
	}
	return kinds
}

// kindOf names what a descriptor is of, without what is another at each run: numbers of inodes and processes.
func kindOf(to, info string, sockets map[string]string) string {
	field := func(name string) string {
		_, value, _ := strings.Cut("\n"+info, "\n"+name+":")
		value, _, _ = strings.Cut(value, "\n")
		return strings.TrimSpace(value)
	}
	number := strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")
	switch {
	case strings.HasPrefix(to, "socket:["):
		if s, ok := sockets[number]; ok {
			return s
		}
		return "socket" // of no table: one that is in no state yet, or another namespace's
	case field("Pid") == "-1":
		return "pidfd of a process that has ended"
	case field("Pid") != "":
		return "pidfd"
	case strings.Contains(to, "inotify"):
		return fmt.Sprintf("inotify of %d", strings.Count("\n"+info, "\ninotify wd:"))
	case field("iff") != "":
		return "tun " + field("iff")
	case strings.HasPrefix(to, "pipe:["), strings.HasPrefix(to, "net:["):
		kind, _, _ := strings.Cut(to, ":")
		return kind
	}
	return to
}

// socketsOf are the sockets of a process's network namespace, by inode: what each is, and a bound one's path.
func socketsOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for table, column := range map[string]int{"unix": 6, "netlink": 9, "tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "raw": 9, "raw6": 9, "packet": 8} {
		text, err := os.ReadFile(filepath.Join(dir, "net", table))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6 here
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) <= column {
				continue
			}
			what := table + " socket"
			if table == "unix" && len(f) > column+1 {
				what += " " + f[column+1]
			}
			all[f[column]] = what
		}
	}
	return all
}

// What a daemon could leak is seen: this process opens one of each.
func TestKindsOfDescriptors(t *testing.T) {
	before := kindsOf(t, os.Getpid())
	dir := testhost.Dir(t)
	want := descriptorKinds{}
	keep := func(kind string, f *os.File, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		want[kind]++
		t.Cleanup(func() { _ = f.Close() })
	}
	gone := filepath.Join(dir, "disk")
	f, err := os.Create(gone)
	keep(gone+" (deleted)", f, err)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	f, err = os.Open("/proc/self/ns/net")
	keep("net", f, err)

	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	want["unix socket "+filepath.Join(dir, "s")]++
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	want["udp socket"]++

	for _, ended := range []bool{false, true} {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		end := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		if ended {
			end()
			want["pidfd of a process that has ended"]++
		} else {
			t.Cleanup(end)
			want["pidfd"] += 2 // and the library's own
		}
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
	}
	keep("inotify of 1", os.NewFile(uintptr(fd), "inotify"), err)

	got := kindsOf(t, os.Getpid()).minus(before)
	for _, kind := range slices.Sorted(maps.Keys(want)) {
		if got[kind] != want[kind] {
			t.Errorf("of %q it sees %d, want %d, in %v", kind, got[kind], want[kind], got)
		}
	}
	if more := (descriptorKinds{"/x/banger.db": connections, "/y": 1}).minus(descriptorKinds{"/x/banger.db": 1, "/y": 1, "/z": 1}); len(more) > 0 {
		t.Errorf("more than allowed: %v", more)
	}
	if more := (descriptorKinds{"/x/banger.db": connections + 1, "/y": 2}).minus(descriptorKinds{"/x/banger.db": 1, "/y": 1}); len(more) != 2 {
		t.Errorf("not more than allowed: %v", more)
	}
}
