package agent

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// budget bounds the memory of all journals together. It is a sum, not a reservation: writers at the same time may pass it by
// a chunk each.
type budget struct {
	limit int64
	used  atomic.Int64
	// reclaim frees what can be had most easily, and reports whether there was anything.
	reclaim func() bool
}

// Of a guest's memory, what the output of all its jobs may take at most.
const (
	budgetShare = 16 // of so many parts one
	budgetMost  = 16 << 20
)

func newBudget() *budget {
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem) // it cannot fail; were it to, a chunk of each job would be kept
	return &budget{limit: min(budgetMost, int64(mem.Totalram)*int64(mem.Unit)/budgetShare)}
}

func (b *budget) take(n int) { b.used.Add(int64(n)) }
func (b *budget) give(n int) { b.used.Add(-int64(n)) }

// fits reports whether n more would be within the limit, once what has ended has made room.
func (b *budget) fits(n int) bool {
	for b.used.Load()+int64(n) > b.limit {
		if !b.reclaim() {
			return false
		}
	}
	return true
}
