package testhost

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/host/proc"
)

// namedNetworks is where ip netns binds namespaces to names.
const namedNetworks = "/run/netns"

// networks sees the network namespaces beside this process's own: those that are bound to a path, and those that a thread
// lives in or a descriptor holds open.
func networks() (Snapshot, error) {
	s, err := boundNetworks()
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	ids, err := proc.Find(func([]string) bool { return true })
	if err != nil {
		return nil, err
	}
	at := map[string]int{} // in s, by namespace
	for _, id := range ids {
		p, err := processItem(id)
		if err != nil {
			continue // ended since
		}
		for _, ns := range networksOf(id) {
			if ns == own {
				continue
			}
			if _, ok := at[ns]; !ok {
				at[ns] = len(s)
				s = append(s, Item{Kind: "netns", Text: ns + " of " + p.Text, id: ns})
			}
			s[at[ns]].search += p.Text + "\x00" + p.search + "\x00" // of each that keeps it
		}
	}
	return s, nil
}

// networksOf are the namespaces that one process keeps, each once.
func networksOf(id proc.Identity) (all []string) {
	dir := procDir(id)
	for _, glob := range []string{dir + "/task/*/ns/net", dir + "/fd/*"} {
		links, _ := filepath.Glob(glob)
		for _, l := range links {
			ns, err := os.Readlink(l) // closed meanwhile, or another user's: nothing
			if err == nil && strings.HasPrefix(ns, "net:[") && !slices.Contains(all, ns) {
				all = append(all, ns)
			}
		}
	}
	return all
}

// boundNetworks also sees the names of ip netns on which nothing is mounted any more.
func boundNetworks() (s Snapshot, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	bound := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		// What is mounted of its file system is the fourth field, and where the fifth (proc_pid_mountinfo(5)).
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[3], "net:[") {
			bound[f[4]] = true
			s = append(s, Item{Kind: "netns", Text: f[3] + " at " + f[4]})
		}
	}
	entries, err := os.ReadDir(namedNetworks)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if path := filepath.Join(namedNetworks, e.Name()); !bound[path] {
			s = append(s, Item{Kind: "netns", Text: path + ", to which no namespace is bound"})
		}
	}
	return s, err
}
