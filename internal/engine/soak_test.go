package engine

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"banger/internal/api"
)

// footprint is what a daemon holds of its host for itself.
type footprint struct{ fds, goroutines, heapKiB int }

func (f footprint) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d KiB of heap", f.fds, f.goroutines, f.heapKiB)
}

// takeFootprint waits until goroutines that are ending have ended, as far as they do.
func takeFootprint(t *testing.T, most int) (f footprint) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // no event tells of a goroutine's end
		if f.goroutines = runtime.NumGoroutine(); f.goroutines <= most || time.Now().After(end) {
			break
		}
	}
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	runtime.GC()
	runtime.GC() // what had finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.fds, f.heapKiB = len(entries), int(m.HeapAlloc>>10)
	return f
}

// TestSoak takes a thousand VMs through their whole life, and holds what the daemon has at the end against what it had
// when it was warm.
func TestSoak(t *testing.T) {
	const cycles, warm, atOnce = soakCycles, 100, 8
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // a thousand lives are some ten thousand commits: a disk would take minutes
	}
	w := newWorld(t)
	d := w.start()
	lives := func(from, to int) {
		next := make(chan int)
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() {
				for i := range next {
					if err := d.life(fmt.Sprintf("v%d", i)); err != nil {
						t.Errorf("life %d: %v", i, err)
					}
				}
			})
		}
		for i := from; i < to && !t.Failed(); i++ {
			next <- i
		}
		close(next)
		wg.Wait()
	}
	lives(0, warm)
	before := takeFootprint(t, 0)
	lives(warm, cycles)
	after := takeFootprint(t, before.goroutines)
	t.Logf("after %d lives: %v", warm, before)
	t.Logf("after %d lives: %v", cycles, after)
	if after.fds > before.fds+8 || after.goroutines > before.goroutines+8 || after.heapKiB > before.heapKiB+8<<10 {
		t.Errorf("it grew: %v, then %v", before, after)
	}
	w.nothingLeft()
}

// life is that of one VM, from its creation to its end.
func (d *daemon) life(name string) error {
	ctx := d.t.Context()
	r, err := d.Create(ctx, api.CreateRequest{Name: name}, nil)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { _, err := d.Start(ctx, name); return err },
		func() error { _, err := d.Watch().Started(ctx, r.ID, nil); return err },
		func() error { _, err := d.Stop(ctx, name, false, 0); return err },
		func() error { _, err := d.Watch().Stopped(ctx, r.ID, nil); return err },
		func() error { _, err := d.Delete(ctx, name); return err },
		func() error { return d.Watch().Gone(ctx, r.ID, nil) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
