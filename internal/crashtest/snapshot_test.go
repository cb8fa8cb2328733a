package crashtest

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// snapshot is a world at one moment, no daemon being there. Paths are in rows and in the kernel: it goes back to where it
// was taken.
type snapshot struct {
	w     world
	k     *machine
	dirs  []string // below the root, parents first
	files map[string][]byte
	links map[string]string
	modes map[string]fs.FileMode
}

// ballast is left where it lies, as long as there is to be one: nothing is in it.
const ballast = "ballast"

func (w *world) save() *snapshot {
	s := &snapshot{w: *w, k: w.k.clone(), files: map[string][]byte{}, links: map[string]string{}, modes: map[string]fs.FileMode{}}
	err := filepath.WalkDir(w.paths.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.paths.Root, path)
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		s.modes[rel] = fi.Mode().Perm()
		switch {
		case e.IsDir():
			s.dirs = append(s.dirs, rel)
		case e.Type() == fs.ModeSymlink:
			s.links[rel], err = os.Readlink(path)
		case rel == ballast:
			s.files[rel] = nil
		default:
			s.files[rel], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// restore is the world as it was saved, with a kernel of its own.
func (s *snapshot) restore() *world {
	w := s.w
	w.k = s.k.clone()
	entries, err := os.ReadDir(w.paths.Root)
	for _, e := range entries {
		if _, keep := s.files[ballast]; err == nil && (e.Name() != ballast || !keep) {
			err = os.RemoveAll(filepath.Join(w.paths.Root, e.Name()))
		}
	}
	for _, d := range s.dirs {
		if err == nil && d != "." {
			err = os.Mkdir(filepath.Join(w.paths.Root, d), s.modes[d])
		}
	}
	for name, content := range s.files {
		if err == nil && name != ballast {
			err = os.WriteFile(filepath.Join(w.paths.Root, name), content, s.modes[name])
		}
	}
	for name, to := range s.links {
		if err == nil {
			err = os.Symlink(to, filepath.Join(w.paths.Root, name))
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &w
}

// clone is the same kernel once more; its processes go on in it.
func (k *machine) clone() *machine {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := &machine{
		Host: k.Clone(), bridge: k.bridge, rules: slices.Clone(k.rules), taps: maps.Clone(k.taps), joined: maps.Clone(k.joined), loops: maps.Clone(k.loops),
		dms: maps.Clone(k.dms), full: k.full, cgroups: maps.Clone(k.cgroups), loopNo: k.loopNo,
		ports: map[*hostPort]bool{}, portNo: k.portNo, // the daemon that listened is none of this host's
	}
	c.Rule(c.usual())
	return c
}

// end ends all processes, and with them what serves them.
func (k *machine) end() { k.Host.Reboot() }
