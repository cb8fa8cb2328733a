// Package hold keeps what is in use from being taken away, where no record tells of its user yet. It knows nothing of what is held.
package hold

import (
	"context"
	"sync"
)

// Set is what is in use, by key. The zero Set holds nothing.
type Set struct {
	mu    sync.Mutex
	users map[string]int
	taken map[string]chan struct{} // closed when its taker is done
}

// Hold keeps key from being taken until release is called, once. While it is being taken away, Hold waits for the end of
// that, or of ctx: whoever was granted a hold looks whether the thing is still there.
func (h *Set) Hold(ctx context.Context, key string) (release func(), err error) {
	for {
		h.mu.Lock()
		end := h.taken[key]
		if end == nil {
			if h.users == nil {
				h.users = map[string]int{}
			}
			h.users[key]++
			h.mu.Unlock()
			return func() { h.release(key) }, nil
		}
		h.mu.Unlock()
		select {
		case <-end:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Set) release(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[key]--; h.users[key] == 0 {
		delete(h.users, key)
	}
}

// Take has key for its caller alone until done is called, once. It does not wait: ok is false where somebody holds key, or
// has taken it.
func (h *Set) Take(key string) (done func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[key] > 0 || h.taken[key] != nil {
		return nil, false
	}
	end := make(chan struct{})
	if h.taken == nil {
		h.taken = map[string]chan struct{}{}
	}
	h.taken[key] = end
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.taken, key)
		close(end)
	}, true
}
