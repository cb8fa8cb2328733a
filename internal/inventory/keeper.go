package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"banger/internal/vm"
)

// Config wires a Keeper.
type Config struct {
	Kinds []Kind

	// Records reads the records of all VMs, which are this root's: with another's no daemon starts. Only then is it known what
	// belongs to nobody.
	Records func(ctx context.Context) ([]vm.VMRecord, error)
	// Born is when the database's file was made; zero where that cannot be known.
	Born func() time.Time
	// Sweep has the worker of a VM at rest take down what a run of it left, and waits for it. The worker alone may: the VM may
	// be started at this moment.
	Sweep func(ctx context.Context, id vm.ID) error
}

// Keeper takes the inventory of one root and removes its orphans. It works in the daemon, beside whatever it judges.
type Keeper struct {
	Config
	turn chan struct{} // holds one token: whoever has it removes
}

// New makes a keeper that has not looked yet.
func New(c Config) *Keeper { return &Keeper{Config: c, turn: make(chan struct{}, 1)} }

// List looks at everything that carries our mark, in the order of removal. What could be found is returned beside an error
// of a look; an error of the records returns nothing, since nothing is known of any object then.
//
// What looks like an orphan is looked at twice: a VM that was being removed has gone by then.
func (k *Keeper) List(ctx context.Context) ([]Finding, error) {
	first, lookErr, err := k.take(ctx)
	if err != nil {
		return nil, err
	}
	orphans := false
	for _, f := range first {
		orphans = orphans || f.Status == Orphan
	}
	if !orphans {
		return first, lookErr
	}
	second, secondErr, err := k.take(ctx)
	if err != nil {
		return nil, err
	}
	there := map[key]Finding{}
	for _, f := range second {
		there[f.key()] = f
	}
	out := first[:0]
	for _, f := range first {
		again, ok := there[f.key()]
		switch {
		case f.Status != Orphan:
			out = append(out, f)
		case ok:
			out = append(out, again)
		case secondErr != nil: // it may only not have been seen
			out = append(out, f)
		}
	}
	return out, errors.Join(lookErr, secondErr)
}

type key struct{ kind, name string }

func (o Object) key() key { return key{o.Kind, o.Name} }

// take looks once.
func (k *Keeper) take(ctx context.Context) (all []Finding, lookErr, err error) {
	var errs []error
	for _, kind := range k.Kinds {
		objects, err := kind.List(ctx)
		errs = append(errs, err)
		for _, o := range objects {
			all = append(all, Finding{Object: o, rank: kind.Rank(), kind: kind})
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	known := knowledge{born: k.Born()}
	if known.records, err = k.Records(ctx); err != nil { // after the look: see knowledge
		return nil, nil, fmt.Errorf("tell what belongs to no VM: %w", err)
	}
	return judge(all, known), errors.Join(errs...), nil
}

// Outcome is what became of one orphan that was to be removed.
type Outcome struct {
	Finding
	Removed bool
	Err     error // why not, where it was tried
}

// Fix removes those of the named orphans that still are some, holders before what they hold, and tells of each orphan
// that was named what became of it. An error in the place of outcomes means that nothing was removed. Of the VMs in discard
// that also goes which is kept because their record may have been lost.
func (k *Keeper) Fix(ctx context.Context, named func(kind, name string) bool, discard ...vm.ID) ([]Outcome, error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	all, err := k.List(ctx)
	if err != nil { // an incomplete look may have missed who holds what
		return nil, fmt.Errorf("look before removing: %w", err)
	}
	var out []Outcome
	failed := map[vm.ID]string{} // VMs of which something stays: what that holds must stay as well
	swept := map[vm.ID]error{}
	for _, f := range all {
		if f.Status != Orphan || !named(f.Kind, f.Name) {
			continue
		}
		if slices.Contains(discard, f.VM) {
			f.Kept = ""
		}
		o := Outcome{Finding: f}
		switch {
		case f.Kept != "":
		case f.stale:
			if _, done := swept[f.VM]; !done {
				swept[f.VM] = k.Sweep(ctx, f.VM)
			}
			o.Err = swept[f.VM]
			o.Removed = o.Err == nil
		case f.VM != "" && failed[f.VM] != "":
			o.Kept = "its " + failed[f.VM] + " could not be removed, and may need it"
		default:
			o.Err = f.kind.Remove(ctx, f.Object)
			o.Removed = o.Err == nil
		}
		if !o.Removed && f.VM != "" && failed[f.VM] == "" {
			failed[f.VM] = f.Kind
		}
		out = append(out, o)
	}
	return out, nil
}
