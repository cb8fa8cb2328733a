package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"banger/internal/testhost"
)

// judge tells what the command left from what only happened meanwhile: others log in, run containers, have daemons and
// clones of their own. Left is what is new and names one of the marks (paths of the command's own), or carries a name
// that only banger gives. Everything else that came or went is a note.
func judge(before, after testhost.Snapshot, marks []string) (left testhost.Snapshot, notes string) {
	var others testhost.Snapshot
	for _, i := range after.Minus(before) {
		if mentions(i.Text, marks) || named(i) {
			left = append(left, i)
		} else {
			others = append(others, i)
		}
	}
	return left, testhost.Diff(before.Minus(after), others)
}

// mentions says whether the text names one of these paths or something below it.
func mentions(text string, paths []string) bool {
	for _, p := range paths {
		for rest := text; ; {
			_, after, found := strings.Cut(rest, p)
			if !found {
				break
			}
			if after == "" || after[0] == '/' || after[0] == ' ' {
				return true
			}
			rest = after
		}
	}
	return false
}

// name is what objects are called whose names follow from a VM's id, and what they are kept in.
var name = regexp.MustCompile(`banger|\bbt[0-9a-f]{12}\b`)

func named(i testhost.Item) bool {
	switch i.Kind {
	case "cgroup":
		return strings.HasPrefix(filepath.Base(i.Text), "banger-") && !populated(i.Text)
	case "nft":
		table, _, _ := strings.Cut(i.Text, ": ")
		return name.MatchString(table)
	case "link", "dm":
		return name.MatchString(i.Text)
	case "netns": // by the name that it is bound to: processes are looked at for themselves
		return !strings.Contains(i.Text, " of ") && name.MatchString(i.Text)
	}
	return false
}

// populated says whether a process lives in the cgroup. It is another's then: of the command's own none is left by now.
func populated(cgroup string) bool {
	b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	return err == nil && len(b) > 0
}
