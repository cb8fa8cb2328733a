package fake

import "context"

// pause halts the machine of p, or lets it go on.
func (h *Host) pause(p *process, halt bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case halt && p.paused == nil:
		p.paused = make(chan struct{})
	case !halt && p.paused != nil:
		close(p.paused)
		p.paused = nil
	}
}

func (h *Host) isPaused(p *process) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.paused != nil
}

// awaitGuest waits while the machine of p is paused, or p is stopped; the error is as of awaitRunning.
func (h *Host) awaitGuest(ctx context.Context, p *process) error {
	for {
		if err := h.awaitRunning(ctx, p); err != nil {
			return err
		}
		h.mu.Lock()
		paused := p.paused
		h.mu.Unlock()
		if paused == nil {
			return nil
		}
		select {
		case <-paused:
		case <-p.gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitRunning waits while p is stopped. It returns ctx's error when that ends first, and nil when p has ended.
func (h *Host) awaitRunning(ctx context.Context, p *process) error {
	h.mu.Lock()
	stopped := p.stopped
	h.mu.Unlock()
	if stopped == nil {
		return nil
	}
	select {
	case <-stopped:
		return nil
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
