// Package tsc finds the rate of the host's time stamp counter. A guest under software emulation reads the host's
// counter and has nothing to calibrate it by: told this rate (tsc_early_khz=), it neither hangs in calibration nor runs
// at a wrong speed.
//
// It remembers nothing: the rate holds for one boot of the host, and the caller keeps it.
package tsc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// window is the time over which the rate is measured. A reading is uncertain by some 100 ns at each end, which over
// 50 ms makes 4 ppm.
const window = 50 * time.Millisecond

// believable is how far a stated rate may lie from the measured one: a hypervisor that was migrated, or scales the
// counter, states what no longer holds.
const believable = 100e-6

// KHz returns the rate in kHz, right to 50 ppm; it takes about 50 ms. The processor's or hypervisor's statement is
// taken where the measurement agrees with it, else the measurement, against CLOCK_MONOTONIC_RAW.
func KHz(ctx context.Context) (uint64, error) {
	if !available {
		return 0, errors.New("measure time stamp counter: this processor has none that is known")
	}
	measured, err := measure(ctx, window)
	if err != nil {
		return 0, fmt.Errorf("measure time stamp counter: %w", err)
	}
	return choose(stated(), measured), nil
}

// choose decides between a stated rate (0: none) and a measured one, both in Hz, and rounds to kHz.
func choose(stated uint64, measured float64) uint64 {
	hz := measured
	if s := float64(stated); math.Abs(s-measured) <= believable*measured {
		hz = s
	}
	return uint64(math.Round(hz / 1000))
}

// measure counts ticks over a window, in Hz.
func measure(ctx context.Context, window time.Duration) (float64, error) {
	first, err := read()
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(window)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	last, err := read()
	if err != nil {
		return 0, err
	}
	ticks, ns := last.ticks-first.ticks, last.ns-first.ns
	if last.ticks <= first.ticks || ns <= 0 {
		return 0, fmt.Errorf("it went from %d to %d in %d ns", first.ticks, last.ticks, ns)
	}
	return float64(ticks) / float64(ns) * 1e9, nil
}

// reading is one moment on both clocks.
type reading struct {
	ticks uint64
	ns    int64
}

// read takes the moment between the two closest of many pairs of ticks: where the least came in between.
func read() (reading, error) {
	const tries = 64
	var best reading
	closest := uint64(math.MaxUint64)
	for range tries {
		var ts unix.Timespec
		before := rdtsc()
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts)
		after := rdtsc()
		if err != nil {
			return reading{}, fmt.Errorf("read clock: %w", err)
		}
		if width := after - before; width < closest {
			closest = width
			best = reading{ticks: before + width/2, ns: ts.Nano()}
		}
	}
	return best, nil
}
