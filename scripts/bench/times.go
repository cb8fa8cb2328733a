package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// times are measurements of one thing.
type times []time.Duration

func (t *times) add(d time.Duration) { *t = append(*t, d) }

// measure adds what f measures. A start that fails is told and made once more: emulated KVM loses a guest now and then.
func (t *times) measure(ctx context.Context, f func(context.Context) (time.Duration, error)) error {
	d, err := f(ctx)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench: once more, after:", err)
		d, err = f(ctx)
	}
	if err == nil {
		t.add(d)
	}
	return err
}

// median is the lower one of the two in the middle where there are two; zero of nothing.
func (t times) median() time.Duration {
	if len(t) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(t))[(len(t)-1)/2]
}

func (t times) String() string {
	if len(t) == 0 {
		return "not measured"
	}
	return fmt.Sprintf("min %8.1f  median %8.1f  max %8.1f ms  (n=%d)", ms(slices.Min(t)), ms(t.median()), ms(slices.Max(t)), len(t))
}
