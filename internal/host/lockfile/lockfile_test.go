package lockfile

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"
)

func TestTakeWaits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	drop, err := Take(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{})
	go func() {
		if d, err := Take(context.Background(), file); err == nil {
			d()
			close(got)
		}
	}()
	select {
	case <-got:
		t.Fatal("two hold the lock")
	case <-time.After(30 * time.Millisecond):
	}
	drop()
	select {
	case <-got:
	case <-time.After(5 * time.Second):
		t.Fatal("the lock is never free")
	}
}

func TestTakeGivesUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	drop, err := Take(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("Ctrl-C")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	if _, err := Take(ctx, file); !errors.Is(err, why) {
		t.Error(err)
	}
	drop()
	// Who gave up does not keep it.
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	drop, err = Take(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	drop()
}

func TestTakeNeedsTheDirectory(t *testing.T) {
	if _, err := Take(context.Background(), filepath.Join(t.TempDir(), "absent", "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
