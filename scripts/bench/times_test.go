package main

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   times
		want time.Duration
	}{
		{nil, 0},
		{times{3}, 3},
		{times{9, 1, 5}, 5},
		{times{4, 1, 2, 3}, 2},
	} {
		if got := c.in.median(); got != c.want {
			t.Errorf("median of %v = %v, want %v", []time.Duration(c.in), got, c.want)
		}
	}
}
