package flight

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/vm"
)

func TestFlightIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		made := 0
		land := make(chan struct{})
		work := func(_ context.Context, report vm.Report) (int, error) {
			made++
			report.Send(vm.Event{Text: "one"})
			<-land
			report.Send(vm.Event{Text: "two"})
			return 42, errors.New("and an error")
		}
		seen := make([]string, 3)
		results := make(chan int, 3)
		for i := range 3 {
			go func() {
				v, err := g.Do(t.Context(), "k", func(e vm.Event) { seen[i] += e.Text + " " }, work)
				if err == nil {
					t.Error("the error was lost")
				}
				results <- v
			}()
			synctest.Wait() // the third joins after the first event
		}
		close(land)
		for range 3 {
			if v := <-results; v != 42 {
				t.Errorf("got %d", v)
			}
		}
		synctest.Wait()
		for i, s := range seen {
			if s != "one two " {
				t.Errorf("caller %d saw %q", i, s)
			}
		}
		if made != 1 {
			t.Errorf("made %d times", made)
		}
		if len(g.m) != 0 {
			t.Errorf("%d flights left", len(g.m))
		}
	})
}

func TestFlightOutlivesOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		land := make(chan struct{})
		work := func(ctx context.Context, report vm.Report) (int, error) {
			<-land
			report.Send(vm.Event{Text: "late"})
			return 1, ctx.Err()
		}
		first, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		heard := false
		go func() {
			_, err := g.Do(first, "k", func(vm.Event) { heard = true }, work)
			left <- err
		}()
		synctest.Wait()
		stays := make(chan error)
		go func() {
			_, err := g.Do(t.Context(), "k", nil, work)
			stays <- err
		}()
		synctest.Wait()
		cancel() // of the one who started it
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		close(land)
		if err := <-stays; err != nil {
			t.Errorf("who stayed got %v", err)
		}
		if heard {
			t.Error("a report was called after its caller had returned")
		}
	})
}

func TestFlightEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		returned := make(chan struct{})
		for range 2 {
			go func() {
				_, _ = g.Do(ctx, "k", nil, func(ctx context.Context, _ vm.Report) (int, error) {
					<-ctx.Done()
					ended <- ctx.Err()
					<-returned // still cleaning up
					return 0, ctx.Err()
				})
			}()
			synctest.Wait()
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("work saw %v", err)
		}
		// A newcomer must not get the cancelled flight's error.
		v, err := g.Do(t.Context(), "k", nil, func(context.Context, vm.Report) (int, error) { return 7, nil })
		if v != 7 || err != nil {
			t.Errorf("newcomer got %d, %v", v, err)
		}
		close(returned)
	})
}

// TestCloseEndsFlights: those that everybody has left and that still clean up are waited for as well.
func TestCloseEndsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		var cleaned atomic.Int32
		work := func(ctx context.Context, _ vm.Report) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			cleaned.Add(1)
			return 0, ctx.Err()
		}
		ctx, leave := context.WithCancel(t.Context())
		got := make(chan error, 2)
		go func() { _, err := g.Do(ctx, "left", nil, work); got <- err }()
		go func() { _, err := g.Do(t.Context(), "stays", nil, work); got <- err }()
		synctest.Wait()
		leave()
		synctest.Wait()
		g.Close()
		if n := cleaned.Load(); n != 2 {
			t.Errorf("%d of 2 have cleaned up", n)
		}
		for range 2 {
			if err := <-got; !errors.Is(err, context.Canceled) {
				t.Errorf("a caller got %v", err)
			}
		}
		if _, err := g.Do(t.Context(), "new", nil, work); vm.CodeOf(err) != vm.CodeCanceled {
			t.Errorf("after the end: %v", err)
		}
		g.Close()
	})
}
