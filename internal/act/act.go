// Package act names every durable or host-visible act of the program, so that a test can end the process, or make the act
// fail, exactly there. Each act passes two points, before and after it:
//
//	<operation>:<object>:before     nothing was done yet
//	<operation>:<object>:made       the object is there (or gone), and no record says so yet
//	<operation>:<object>:recorded   the same of an act that is itself a record: a transaction, the scratch file
//
// The operation is in the context: it is what somebody asked for, or what a worker does of its own. The object is named
// where it is made, at the lowest layer that makes its kind, so that a new kind has its points by being made at all.
// internal/archtest fails where an act has none.
//
// Where nobody watches, an act costs one atomic load. This package must not know what acts there are.
package act

import (
	"context"
	"sync/atomic"
)

// An Observer is told each point that is passed. An error from a point before an act takes the act's place; one from
// another point is ignored: what was done is done. It may not return at all, as the process does not when it is killed.
type Observer interface {
	Pass(label string) error
}

type (
	operationKey struct{}
	observerKey  struct{}
)

var (
	watched atomic.Bool              // somebody observes something
	process atomic.Pointer[Observer] // what is not observed by context
)

// In returns a context in which acts are of this operation.
func In(ctx context.Context, operation string) context.Context {
	return context.WithValue(ctx, operationKey{}, operation)
}

// Watch returns a context whose acts pass o, and not the process's own observer.
func Watch(ctx context.Context, o Observer) context.Context {
	watched.Store(true)
	return context.WithValue(ctx, observerKey{}, o)
}

// Do does f, an act on that kind of object.
func Do(ctx context.Context, object string, f func() error) error {
	return do(ctx, object, "made", f)
}

// Record does f, an act that writes down what is, or is to be.
func Record(ctx context.Context, object string, f func() error) error {
	return do(ctx, object, "recorded", f)
}

func do(ctx context.Context, object, after string, f func() error) error {
	if !watched.Load() {
		return f()
	}
	o := observer(ctx)
	if o == nil {
		return f()
	}
	operation, _ := ctx.Value(operationKey{}).(string)
	if operation == "" {
		operation = Unnamed
	}
	label := operation + ":" + object + ":"
	if err := o.Pass(label + "before"); err != nil {
		return err
	}
	err := f()
	if err == nil {
		_ = o.Pass(label + after)
	}
	return err
}

// Unnamed is the operation of acts in a context that has none: a slip, which tests look for.
const Unnamed = "unnamed"

func observer(ctx context.Context) Observer {
	if o, ok := ctx.Value(observerKey{}).(Observer); ok {
		return o
	}
	if o := process.Load(); o != nil {
		return *o
	}
	return nil
}
