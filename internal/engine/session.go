package engine

import (
	"time"
)

// session is the one exec session that a VM made with --rm lives for. The VM is removed when it is over, when it has
// not come some time after the VM was ready, and when the daemon died under it. So a client that is killed between
// "create" and "exec" leaves nothing.
type session struct {
	running int       // sessions there now
	over    bool      // one has ended, or died with an earlier daemon
	until   time.Time // a first one may come until then; zero while the VM starts
}

// How long a first session is waited for; a client connects within milliseconds.
const (
	sessionWait    = 30 * time.Second // once the VM is ready
	sessionMourned = 5 * time.Second  // once its start failed: the client that comes learns why
)

// present says that a session runs or may still come.
func (s session) present(now time.Time) bool {
	if s.running > 0 || s.over {
		return s.running > 0
	}
	return s.until.IsZero() || now.Before(s.until)
}

// due is how long until a VM has waited long enough; 0 = it does not wait.
func (s session) due(now time.Time) time.Duration {
	if s.running > 0 || s.over || s.until.IsZero() {
		return 0
	}
	return max(s.until.Sub(now), time.Millisecond)
}

// mayCome sets how long a first session is waited for, from now on.
func (w *worker) mayCome(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session.until = time.Now().Add(wait)
}

// beginSession notes an exec session; call the returned function when it is over.
func (w *worker) beginSession() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session.running++
	return func() {
		w.mu.Lock()
		w.session.running--
		w.session.over = true
		w.mu.Unlock()
		w.poke()
	}
}
