package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vm"
)

// Place is where everything of one root lies: absolute paths.
type Place struct {
	Root        string // what people know it by
	State, Run  string
	Cache       string
	VMs, Images string
}

// Dir is a VM's own directory.
func (p Place) Dir(id vm.ID) string { return filepath.Join(p.VMs, string(id)) }

// Sockets is the directory of a VM's sockets.
func (p Place) Sockets(id vm.ID) string { return filepath.Join(p.Run, string(id)) }

// VMDirs lists what in a directory is called by a VM's id; nothing where there is no directory.
func VMDirs(dir string) (dirs []fs.DirEntry, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if _, err := vm.ParseID(e.Name()); err == nil {
			dirs = append(dirs, e)
		}
	}
	return dirs, err
}

// Trace is the proof that a VM of this id was made here, for objects that carry an id and nothing of a root: a directory
// that is called so. Empty when there is none.
func (p Place) Trace(id vm.ID) string {
	for _, dir := range []string{p.Dir(id), p.Sockets(id)} {
		if fi, err := os.Lstat(dir); err == nil && fi.IsDir() {
			return dir + " is there"
		}
	}
	return ""
}

// Elsewhere words the doubt about an object of which the mark names a VM and not a root.
func (p Place) Elsewhere() string {
	return "it carries a VM's id that leaves no trace in " + p.Root + ": another BANGER_ROOT may need it"
}

// Below says whether a path lies in a directory, and its way from there. The kernel writes paths without links, so both
// forms of the directory count.
func Below(path, dir string) (rest string, ok bool) {
	for _, d := range []string{dir, Plain(dir)} {
		if rest, ok := strings.CutPrefix(path, d+"/"); ok && filepath.Clean(path) == path {
			return rest, true
		}
	}
	return "", false
}

// Plain is a path without links, where it can be followed.
func Plain(dir string) string {
	if p, err := filepath.EvalSymlinks(dir); err == nil {
		return p
	}
	return dir
}

// ErrChanged says that an object is not what it was when it was listed. It is left as it is.
var ErrChanged = errors.New("it changed since it was looked at")

// Again lists a kind once more and finds an object that is to be removed. ok is false when it is gone; an error when it
// cannot be proven to be ours any more, or is in use.
func Again(ctx context.Context, k Kind, o Object) (now Object, ok bool, err error) {
	all, err := k.List(ctx)
	for _, now := range all {
		if now.key() != o.key() || now.VM != o.VM {
			continue
		}
		if now.Proof == "" || now.Busy != "" {
			return now, true, fmt.Errorf("remove %s %s: %w", o.Kind, o.Name, ErrChanged)
		}
		return now, true, nil
	}
	return Object{}, false, err
}
