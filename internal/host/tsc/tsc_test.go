package tsc

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name     string
		stated   uint64
		measured float64
		want     uint64
	}{
		{"nothing stated", 0, 2_445_423_600.7, 2_445_424},
		{"agreement", 2_445_424_000, 2_445_430_000, 2_445_424},
		{"stated by another host", 2_000_000_000, 2_445_424_100, 2_445_424},
		{"far off upwards", 2_500_000_000, 2_445_424_100, 2_445_424},
	} {
		if got := choose(c.stated, c.measured); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// A long measurement is the yardstick of the short one.
func TestKHzIsRight(t *testing.T) {
	if !available {
		t.Skip("no time stamp counter on this processor")
	}
	start := time.Now()
	got, err := KHz(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second { // 100 ms where the machine is not busy with other tests
		t.Errorf("took %v", took)
	}
	long, err := measure(t.Context(), 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if ppm := math.Abs(float64(got)*1000-long) / long * 1e6; ppm > 50 {
		t.Errorf("%d kHz is %.0f ppm off %.0f Hz", got, ppm, long)
	}
	t.Logf("%d kHz; long measurement %.0f Hz, stated %d Hz", got, long, stated())
}

func TestKHzGivesUpWithContext(t *testing.T) {
	if !available {
		t.Skip("no time stamp counter on this processor")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := KHz(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
