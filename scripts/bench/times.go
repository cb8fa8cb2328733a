package main

import (
	"fmt"
	"slices"
	"time"
)

// times are measurements of one thing.
type times []time.Duration

func (t *times) add(d time.Duration) { *t = append(*t, d) }

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
