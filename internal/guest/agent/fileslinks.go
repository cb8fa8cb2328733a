package agent

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxLinks is how many links one name may lead through, as in the kernel.
const maxLinks = 40

// destination names files below a directory of the guest as its os.Root can open them. An os.Root follows relative links
// that stay inside, and takes every absolute one for an escape; yet a guest's own (/var/run -> /run) mostly lead to a
// place inside. What comes of it is only a name: it is the os.Root that keeps everything inside.
type destination struct {
	tops []string // the directory, absolute: as given, and without links
	root *os.Root

	dir, resolved string // the last answer: a stream's files come directory by directory
}

func newDestination(dir string, root *os.Root) *destination {
	d := &destination{tops: []string{path.Clean(dir)}, root: root}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != d.tops[0] {
		d.tops = append(d.tops, real)
	}
	return d
}

// place is name with the links of its directories followed, but not its own.
func (d *destination) place(name string) string {
	dir := path.Dir(name)
	if dir != d.dir {
		d.dir, d.resolved = dir, d.follow(dir)
	}
	return path.Join(d.resolved, path.Base(name))
}

// forget is to be called after a link was made.
func (d *destination) forget() { d.dir = "" }

// follow is name with every link followed that is there. A name that leads out, or nowhere, is returned as it is: whoever
// opens it gets the error.
func (d *destination) follow(name string) string {
	done, links := ".", 0
	for todo := strings.Split(name, "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == ".." && done == ".":
			if d.tops[0] == "/" {
				continue // as at the top of every system
			}
			return name
		case part == "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		fi, err := d.root.Lstat(next)
		if err != nil {
			return path.Join(append([]string{next}, todo...)...)
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		target, err := d.root.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return name
		}
		if path.IsAbs(target) {
			inside, ok := d.below(target)
			if !ok {
				return name
			}
			target, done = inside, "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done
}

// below cuts the directory off an absolute path. What is left may lead up again.
func (d *destination) below(target string) (string, bool) {
	for _, top := range d.tops {
		if target == top {
			return ".", true
		}
		if rest, ok := strings.CutPrefix(target, strings.TrimSuffix(top, "/")+"/"); ok {
			return rest, true
		}
	}
	return "", false
}
