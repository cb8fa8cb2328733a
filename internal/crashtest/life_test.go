package crashtest

import (
	"runtime"
	"slices"
	"strings"
	"sync"
)

// life observes all acts of one daemon, and can end it at a point.
type life struct {
	mu     sync.Mutex
	passed []string       // "label#n", in order
	times  map[string]int // by label
	at     string         // "label#n" at which it ends; empty = nowhere
	fault  func(label string) error
	aside  func() // called at the point at, instead of the end
	after  int    // it ends at this many points from now on; negative = never
	over   bool
	died   chan struct{} // closed when it is killed
}

func newLife(at string) *life {
	return &life{times: map[string]int{}, at: at, after: -1, died: make(chan struct{})}
}

// Pass implements act.Observer.
func (l *life) Pass(label string) error {
	var aside func()
	l.mu.Lock()
	if !l.over {
		l.times[label]++
		point := label + "#" + itoa(l.times[label])
		l.passed = append(l.passed, point)
		switch {
		case point == l.at && l.aside != nil:
			aside, l.at = l.aside, ""
		case point == l.at || l.after == 0:
			l.kill()
		}
		if l.after > 0 {
			l.after--
		}
	}
	over, fault := l.over, l.fault
	l.mu.Unlock()
	if aside != nil {
		aside()
	}
	if over {
		runtime.Goexit() // what is deferred runs, and comes to an end at its first act
	}
	if fault != nil && strings.HasSuffix(label, ":before") {
		return fault(label)
	}
	return nil
}

// arm has it end at a point, counted from now on.
func (l *life) arm(at string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed, l.times, l.at = nil, map[string]int{}, at
}

// instead has something else happen at a point, counted from now on, while who passes it waits.
func (l *life) instead(at string, do func()) {
	l.arm(at)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aside = do
}

// endAfter has it end at the n-th point from now on; negative = it goes on.
func (l *life) endAfter(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.after = n
}

// kill needs the lock.
func (l *life) kill() {
	if !l.over {
		l.over = true
		close(l.died)
	}
}

// end is a kill from outside, wherever the daemon is just now.
func (l *life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kill()
}

func (l *life) dead() bool {
	select {
	case <-l.died:
		return true
	default:
		return false
	}
}

// points are those passed so far.
func (l *life) points() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.passed)
}

// failing makes acts fail from now on; nil = no more.
func (l *life) failing(fault func(label string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = fault
}
