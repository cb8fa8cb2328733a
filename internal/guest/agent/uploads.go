package agent

import (
	"net/http"
	"sync"
	"time"

	"banger/internal/vm"
)

// uploads are the copies into the guest that are under way. A power-off ends them, so that what is half-written is removed while
// its disk can still be written to: nobody would do it later.
type uploads struct {
	mu   sync.Mutex
	over bool
	from map[*http.ResponseController]struct{}
	all  sync.WaitGroup
}

var errPoweredOff = vm.Errorf(vm.CodeConflict, "the machine is being powered off")

// begin counts a copy in until done is called. With false it must not begin.
func (u *uploads) begin(w http.ResponseWriter) (done func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return nil, false
	}
	from := http.NewResponseController(w)
	if u.from == nil {
		u.from = map[*http.ResponseController]struct{}{}
	}
	u.from[from] = struct{}{}
	u.all.Add(1)
	return func() {
		u.mu.Lock()
		delete(u.from, from)
		u.mu.Unlock()
		u.all.Done()
	}, true
}

// ended says that copies are ended, or have been.
func (u *uploads) ended() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.over
}

// end has no more of any copy read, and waits at most for d until what they left half-written is gone.
func (u *uploads) end(d time.Duration) {
	u.mu.Lock()
	u.over = true
	for from := range u.from {
		_ = from.SetReadDeadline(time.Now())
	}
	u.mu.Unlock()
	gone := make(chan struct{})
	go func() { u.all.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(d): // a disk that is stuck: the machine ends all the same
	}
}
