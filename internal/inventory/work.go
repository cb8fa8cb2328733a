package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
)

// Work counts what is under way that makes things of which no record tells yet: a build, a probe. So these are told from
// what was left by one that died with its daemon. The zero Work, and a nil one, is ready.
type Work struct{ begun, ended atomic.Int64 }

// Begin says that something is about to be made; end, that it is gone, or has its record.
func (w *Work) Begin() (end func()) {
	if w == nil {
		return func() {}
	}
	w.begun.Add(1)
	return func() { w.ended.Add(1) }
}

// Look calls look, and says whether some work was under way meanwhile: what was seen may be its own. What was seen while
// none was, nobody will use.
func (w *Work) Look(look func() error) (busy bool, err error) {
	if w == nil {
		return false, look()
	}
	ended := w.ended.Load() // first: work that ends between the two lines counts as under way
	begun := w.begun.Load()
	err = look()
	return begun != ended || begun != w.begun.Load(), err
}

// Residue is a kind of files and directories that some work makes, and leaves when it dies.
type Residue struct {
	Name   string // of the kind
	Doing  string // what the work is, for Object.Busy
	Work   *Work
	Find   func(ctx context.Context) (paths []string, err error)
	Delete func(ctx context.Context, path string) error
	Dir    string                   // where they lie: the proof
	Holds  func(path string) string // for Object.Holds; nil: none holds anything
}

// Rank implements Kind.
func (Residue) Rank() Rank { return Files }

// List implements Kind.
func (k Residue) List(ctx context.Context) (out []Object, err error) {
	var paths []string
	busy, err := k.Work.Look(func() (err error) {
		paths, err = k.Find(ctx)
		return err
	})
	for _, p := range paths {
		o := Object{Kind: k.Name, Name: p, Proof: "it lies in " + k.Dir}
		if busy {
			o.Busy = k.Doing
		}
		if k.Holds != nil {
			o.Holds = k.Holds(p)
		}
		out = append(out, o)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("look for what was left in %s: %w", k.Dir, err)
	}
	return out, err
}

// Remove implements Kind.
func (k Residue) Remove(ctx context.Context, o Object) error {
	_, there, err := Again(ctx, k, o)
	if err != nil || !there {
		return err
	}
	if _, err := os.Lstat(o.Name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return k.Delete(ctx, o.Name)
}
