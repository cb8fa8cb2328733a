package testhost

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banger/internal/host/proc"
)

// Item is one thing on the host that a test could leave behind.
type Item struct {
	Kind string // process, mount, loop, dm, link, nft, netns, cgroup, socket, file
	Text string // what it is, for people; two items of one kind and text are the same thing

	id     string        // what stands for the text where that can change
	proc   proc.Identity // of a process
	search string        // also looked at for marks: a process's environment and working directory
}

func (i Item) String() string { return i.Kind + "  " + i.Text }

type key struct{ kind, text string }

func (i Item) key() key {
	if i.id != "" {
		return key{i.Kind, i.id}
	}
	return key{i.Kind, i.Text}
}

// Mentions says whether the item, or the process that it is or is kept by, names one of these.
func (i Item) Mentions(marks []string) bool {
	return slices.ContainsFunc(marks, func(m string) bool {
		return strings.Contains(i.Text, m) || strings.Contains(i.search, m)
	})
}

// Snapshot is what is on the host now.
type Snapshot []Item

// Take looks at the host. Of files it sees the names below dirs. What this user may not see is left out.
func Take(dirs ...string) (Snapshot, error) {
	var s Snapshot
	for _, look := range []func() (Snapshot, error){processes, mounts, loops, mappers, links, rules, networks, cgroups, sockets} {
		items, err := look()
		if err != nil {
			return nil, fmt.Errorf("take a snapshot of the host: %w", err)
		}
		s = append(s, items...)
	}
	for _, d := range dirs {
		items, err := files(d)
		if err != nil {
			return nil, fmt.Errorf("take a snapshot of %s: %w", d, err)
		}
		s = append(s, items...)
	}
	return s, nil
}

// Minus returns what s has and other has not.
func (s Snapshot) Minus(other Snapshot) Snapshot {
	have := make(map[key]bool, len(other))
	for _, i := range other {
		have[i.key()] = true
	}
	return s.only(func(i Item) bool { return !have[i.key()] })
}

func (s Snapshot) only(keep func(Item) bool) Snapshot {
	var kept Snapshot
	for _, i := range s {
		if keep(i) {
			kept = append(kept, i)
		}
	}
	return kept
}

// Diff tells in lines, "-" for what is gone and "+" for what is new, how after differs; empty when it does not.
func Diff(before, after Snapshot) string {
	var b strings.Builder
	for _, i := range before.Minus(after) {
		fmt.Fprintf(&b, "- %s\n", i)
	}
	for _, i := range after.Minus(before) {
		fmt.Fprintf(&b, "+ %s\n", i)
	}
	return b.String()
}

// processes sees every process but this one.
func processes() (Snapshot, error) {
	ids, err := proc.Find(func([]string) bool { return true })
	if err != nil {
		return nil, err
	}
	var s Snapshot
	for _, id := range ids {
		if i, err := processItem(id); err == nil && id.PID != os.Getpid() {
			s = append(s, i)
		}
	}
	return s, nil
}

// processItem is one process with what it was started with; proc.ErrGone when it has ended.
func processItem(id proc.Identity) (Item, error) {
	args, err := proc.Args(id.PID)
	if err != nil {
		return Item{}, err
	}
	env, _ := os.ReadFile(procDir(id) + "/environ") // another user's: nothing of it
	cwd, _ := os.Readlink(procDir(id) + "/cwd")
	return Item{
		Kind:   "process",
		Text:   fmt.Sprintf("%d (started at %d) %s", id.PID, id.StartTime, strings.Join(args, " ")),
		proc:   id,
		search: string(env) + "\x00" + cwd,
	}, nil
}

func procDir(id proc.Identity) string { return "/proc/" + strconv.Itoa(id.PID) }

func mounts() (Snapshot, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var s Snapshot
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 3 {
			s = append(s, Item{Kind: "mount", Text: fmt.Sprintf("%s on %s type %s", f[0], f[1], f[2])})
		}
	}
	return s, nil
}

func loops() (Snapshot, error) {
	return attributes("loop", "/sys/block/loop*/loop/backing_file")
}

func mappers() (Snapshot, error) {
	return attributes("dm", "/sys/block/dm-*/dm/name")
}

// attributes reads one attribute of each device of a kind: "loop3 /path".
func attributes(kind, glob string) (Snapshot, error) {
	paths, err := filepath.Glob(glob)
	if err != nil {
		return nil, err
	}
	var s Snapshot
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue // gone since the listing
		}
		device := strings.Split(p, "/")[3]
		s = append(s, Item{Kind: kind, Text: device + " " + strings.TrimSpace(string(b))})
	}
	return s, nil
}

func links() (Snapshot, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var s Snapshot
	for _, i := range ifs {
		s = append(s, Item{Kind: "link", Text: i.Name})
	}
	return s, nil
}

// rules sees the nftables rule set, without its counters. No nft, or no right to ask: no rules of ours either.
func rules() (Snapshot, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").Output()
	if err != nil {
		return nil, nil
	}
	var s Snapshot
	table := ""
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "table") {
			table = strings.TrimSuffix(strings.TrimSpace(line), " {")
		}
		s = append(s, Item{Kind: "nft", Text: table + ": " + strings.TrimSpace(line)})
	}
	return s, nil
}

// cgroups sees those that carry our name, at any depth a user's delegation would put them.
func cgroups() (Snapshot, error) {
	var s Snapshot
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // gone since the listing
		}
		if d.IsDir() && strings.Contains(d.Name(), "banger") {
			s = append(s, Item{Kind: "cgroup", Text: path})
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return s, err
}

// sockets sees the bound unix sockets, by path.
func sockets() (Snapshot, error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var s Snapshot
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 8 || !strings.HasPrefix(f[7], "/") || seen[f[7]] {
			continue
		}
		seen[f[7]] = true
		s = append(s, Item{Kind: "socket", Text: f[7]})
	}
	return s, nil
}

// files sees names only, and not those that SQLite makes while a database is in use.
func files(dir string) (Snapshot, error) {
	var s Snapshot
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !strings.HasSuffix(path, "-wal") && !strings.HasSuffix(path, "-shm") {
			s = append(s, Item{Kind: "file", Text: path})
		}
		return nil
	})
	return s, err
}
