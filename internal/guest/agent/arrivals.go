package agent

import (
	"cmp"
	"slices"
	"time"
)

// arrivals tell when the bytes of a journal came, by the guest's clock as it was then: from each mark to the next they came at its
// time, give or take what within says. There is a bound to their number; where it is passed, the grain grows.
type arrivals struct {
	list   []mark
	grain  time.Duration // what comes nearer than that to the last mark gets none
	within time.Duration // no byte came further from its mark than that
}

type mark struct {
	at   int64 // offset of the first byte
	when int64 // nanoseconds since 1970; what a time.Time takes would be half as much again
}

const (
	firstGrain = time.Millisecond
	mostMarks  = 4096
	markCost   = 16
)

func (m mark) time() time.Time { return time.Unix(0, m.when) }

// near says that two marks are within a grain of each other. A clock may be set back.
func (m *arrivals) near(a, b mark) bool { return a.time().Sub(b.time()).Abs() < m.grain }

// add notes when the bytes from an offset on came, and returns how many marks there are more.
func (m *arrivals) add(at int64, now time.Time) int {
	next := mark{at, now.UnixNano()}
	before := len(m.list)
	if before > 0 && m.near(next, m.list[before-1]) {
		return 0
	}
	m.list = append(m.list, next)
	if len(m.list) > mostMarks {
		m.thin()
	}
	return len(m.list) - before
}

// thin makes room: half of the marks at least are given up, those that are closest to the ones before them.
func (m *arrivals) thin() {
	for len(m.list) > mostMarks/2 {
		m.grain *= 2
		m.within += m.grain // what is given up may have had bytes as far from it as that was before
		kept := m.list[:1]
		for _, next := range m.list[1:] {
			if !m.near(next, kept[len(kept)-1]) {
				kept = append(kept, next)
			}
		}
		m.list = kept
	}
}

// drop forgets what is not kept any more, and returns how many marks there are less.
func (m *arrivals) drop(begin int64) int {
	n := 0
	for n+1 < len(m.list) && m.list[n+1].at <= begin {
		n++
	}
	m.list = m.list[n:]
	return n
}

// of returns the time of the byte at an offset, and where that of another begins; -1 where it is the last.
func (m *arrivals) of(at int64) (when time.Time, next int64) {
	i, found := slices.BinarySearchFunc(m.list, at, func(m mark, at int64) int { return cmp.Compare(m.at, at) })
	if !found {
		i--
	}
	if i+1 < len(m.list) {
		return m.list[i].time(), m.list[i+1].at
	}
	return m.list[i].time(), -1
}

// since returns the offset of the first byte that came after a time, or may have; of one that is not kept, where all that is
// kept did. -1: there is none.
func (m *arrivals) since(t time.Time) int64 {
	for i, mark := range m.list {
		switch {
		case i == 0 && mark.time().After(t):
			return 0
		case mark.time().Add(m.within).After(t):
			return mark.at
		}
	}
	return -1
}

// until returns the offset of the first byte that came after a time. -1: there is none.
func (m *arrivals) until(t time.Time) int64 {
	for _, mark := range m.list {
		if mark.time().After(t) {
			return mark.at
		}
	}
	return -1
}
