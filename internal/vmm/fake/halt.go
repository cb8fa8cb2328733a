package fake

import (
	"context"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

// pause halts the machine of p, or lets it go on.
func (h *Host) pause(p *process, halt bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case halt && p.paused == nil:
		p.paused = make(chan struct{})
	case !halt && p.paused != nil:
		close(p.paused)
		p.paused, p.full = nil, false
	}
}

// OutOfSpace has a VMM halt its machine by itself, as QEMU does when the host's file system has no room for what a guest writes.
func (h *Host) OutOfSpace(id vm.ID) error {
	process, ok := h.ProcessOf(id)
	p := h.lookup(process)
	if !ok || p == nil {
		return proc.ErrGone
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.paused == nil {
		p.paused, p.full = make(chan struct{}), true
	}
	return nil
}

// halted tells whether the machine of p does not run, and whether that is by itself.
func (h *Host) halted(p *process) (halted, full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.paused != nil, p.full
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
