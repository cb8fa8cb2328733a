package fake

import "time"

// lingers is how long what was killed goes on when nobody waits for its end.
const lingers = 20 * time.Millisecond

// linger ends what was killed as soon as somebody waits for that, or a while later. It needs the lock.
func (h *Host) linger(p *process) {
	if p.dying != nil {
		return
	}
	dying := make(chan struct{})
	p.dying = dying
	go func() {
		late := time.NewTimer(lingers)
		defer late.Stop()
		select {
		case <-dying:
		case <-late.C:
		case <-p.gone:
		}
		h.end(p, "signal: killed")
	}()
}

// Settle ends what was killed and lingers: time has passed.
func (h *Host) Settle() {
	h.mu.Lock()
	var dying []*process
	for _, p := range h.running {
		if p.dying != nil {
			dying = append(dying, p)
		}
	}
	h.mu.Unlock()
	for _, p := range dying {
		h.end(p, "signal: killed")
	}
}

func (h *Host) isDying(p *process) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.dying != nil
}
