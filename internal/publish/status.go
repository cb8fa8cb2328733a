package publish

import (
	"time"

	"banger/internal/vm"
)

// Status is how a port is.
type Status struct {
	Open        bool
	Why         string // it could not be had
	RetryAt     time.Time
	Connections int
}

// Status tells how a VM's port is; ok is false where it has none.
func (p *Publisher) Status(id vm.ID, port vm.Port) (s Status, ok bool) {
	v := p.known(id)
	if v == nil {
		return s, false
	}
	v.mu.Lock()
	e := v.entries[port]
	if e == nil {
		v.mu.Unlock()
		return s, false
	}
	s = Status{Open: e.owned != nil, Why: e.why, RetryAt: e.retryAt}
	live := e.live
	v.mu.Unlock()
	s.Connections = live()
	return s, true
}
