// Package places are the kinds of the inventory that no driver makes: what lies in a root's own directories, and the
// cgroups. It must not judge: it tells what there is, and whether it is this root's.
package places

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"banger/internal/host/cgroup"
	"banger/internal/host/file"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// Source implements inventory.Source.
type Source struct {
	Cgroups cgroup.Tree
	Began   time.Time // of this daemon's life: what is half-written since then may be written on
}

// Kinds implements inventory.Source.
func (s Source) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{
		dirs{name: "VM's directory", what: "vm-directory", place: p, dir: p.VMs},
		dirs{name: "run directory", what: "run-directory", place: p, dir: p.Run, run: true},
		scraps{p, s.Began},
		cgroups{p, s.Cgroups},
		mounts{p},
	}
}

// dirs are the directories that are called by a VM's id: its own, with its disks, or that of its sockets.
type dirs struct {
	name  string
	what  string // in crash points
	place inventory.Place
	dir   string
	run   bool
}

func (dirs) Rank() inventory.Rank { return inventory.Homes }

func (k dirs) List(context.Context) ([]inventory.Object, error) {
	entries, err := inventory.VMDirs(k.dir)
	if err != nil {
		return nil, fmt.Errorf("list directories of VMs: %w", err)
	}
	var out []inventory.Object
	for _, e := range entries {
		path := filepath.Join(k.dir, e.Name())
		o := inventory.Object{Kind: k.name, Name: path, VM: vm.ID(e.Name()), Run: k.run, Proof: "it lies in " + k.dir}
		if !e.IsDir() { // a link leads to where somebody moved it
			o.Proof, o.Doubt = "", "it has a VM's name and is no directory"
		}
		if !k.run { // a run directory is made anew at each start
			o.Made, o.Holds = file.Born(path), disksOf(path)
		}
		out = append(out, o)
	}
	return out, nil
}

// disksOf says what would be lost with a VM's directory.
func disksOf(dir string) string {
	var size int64
	for _, name := range []string{"system", "work.ext4"} {
		n, err := file.Allocated(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "its disks, as it seems"
		}
		size += n
	}
	if size == 0 {
		return ""
	}
	return fmt.Sprintf("its disks, %.1f MiB", float64(size)/(1<<20))
}

func (k dirs) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	return file.RemoveTree(ctx, k.what, o.Name)
}

// cgroups carry a VM's id, and nothing of a root.
type cgroups struct {
	place inventory.Place
	tree  cgroup.Tree
}

func (cgroups) Rank() inventory.Rank { return inventory.Cgroups }

func (k cgroups) List(context.Context) ([]inventory.Object, error) {
	ids, err := k.tree.List()
	var out []inventory.Object
	for _, id := range ids {
		o := inventory.Object{Kind: "cgroup", Name: k.tree.Path(id), VM: id, Run: true, Proof: k.place.Trace(id)}
		if o.Proof == "" {
			o.Doubt = k.place.Elsewhere()
		}
		out = append(out, o)
	}
	return out, err
}

// Remove removes none in which a process lives: the kernel refuses.
func (k cgroups) Remove(ctx context.Context, o inventory.Object) error {
	_, there, err := inventory.Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	return k.tree.Remove(ctx, o.VM)
}

// mounts are never removed. They are told because a directory with one in it cannot be.
type mounts struct{ place inventory.Place }

func (mounts) Rank() inventory.Rank { return inventory.Mounts }

func (k mounts) List(context.Context) ([]inventory.Object, error) {
	all, err := file.Mounts()
	var out []inventory.Object
	for _, at := range all {
		for _, dir := range []string{k.place.State, k.place.Run, k.place.Cache} {
			if _, ok := inventory.Below(at, dir); ok {
				out = append(out, inventory.Object{Kind: "mount", Name: at, Doubt: "banger mounts nothing there: somebody else did"})
				break
			}
		}
	}
	return out, err
}

func (mounts) Remove(_ context.Context, o inventory.Object) error {
	return fmt.Errorf("umount %s: %w", o.Name, inventory.ErrChanged)
}
