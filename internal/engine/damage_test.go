package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"banger/internal/vm"
)

// A database that cannot be read any more is told to whoever waits for what a worker can no longer record.
func TestWaitersAreToldOfAnUnreadableDatabase(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	w.faults.detaching, w.faults.mayDetach = make(chan struct{}), make(chan struct{})
	_, err := d.Stop(t.Context(), "web", true, 0)
	must(t, err)
	<-w.faults.detaching
	told := make(chan error, 1)
	watch := d.Watch()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		_, err := watch.until(ctx, r.ID, nil, func(r vm.VMRecord) (bool, error) { return r.Runtime.State == vm.StateStopped, nil })
		told <- err
	}()
	<-time.After(50 * time.Millisecond) // it reads the record, and waits
	must(t, d.Store.Close())
	w.faults.mayDetach <- struct{}{}
	if err := <-told; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it was told %v", err)
	}
}
