package agent

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"

	"banger/internal/guest"
	"banger/internal/vm"
)

// jobs are all that run, and of those that have ended the newest. They are the agent's memory: they go with the boot.
//
// Its lock may be taken by who holds the journal of a job that runs, and no such journal's is taken under it.
type jobs struct {
	budget *budget

	mu   sync.Mutex
	all  map[string]*job
	list []*job // in the order of their start
	done []*job // those that have ended, in that order
}

func newJobs() *jobs {
	js := &jobs{budget: newBudget(), all: map[string]*job{}}
	js.budget.reclaim = js.reclaim
	return js
}

// add gives a job its id.
func (js *jobs) add(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	for j.id == "" || js.all[j.id] != nil {
		var b [6]byte
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		j.id = hex.EncodeToString(b[:])
	}
	js.all[j.id] = j
	js.list = append(js.list, j)
}

// ended keeps a job that has ended until there are too many.
func (js *jobs) ended(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.all[j.id] != j {
		return // it was forgotten
	}
	js.done = append(js.done, j)
	for i := 0; i < len(js.done) && len(js.done) > guest.KeptEnded; {
		if js.done[i].journal.followed() {
			i++
			continue
		}
		js.drop(js.done[i])
	}
}

// reclaim drops the oldest of those that have ended and that nobody reads any more.
func (js *jobs) reclaim() bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, j := range js.done {
		if written, _ := j.journal.sizes(); written > 0 && !j.journal.followed() {
			js.drop(j)
			return true
		}
	}
	return false
}

// forget drops a job that nobody will ask for.
func (js *jobs) forget(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.drop(j)
}

func (js *jobs) drop(j *job) {
	is := func(other *job) bool { return other == j }
	js.list = slices.DeleteFunc(js.list, is)
	js.done = slices.DeleteFunc(js.done, is)
	delete(js.all, j.id)
	j.journal.forget()
}

// find returns the job of that id, or of which it is a beginning.
func (js *jobs) find(id string) (*job, error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	ids := make([]string, len(js.list))
	for i, j := range js.list {
		ids[i] = j.id
	}
	switch at, n := guest.MatchJob(ids, id); n {
	case 1:
		return js.list[at], nil
	case 0:
		return nil, vm.Errorf(vm.CodeNotFound, "there is no job %q", guest.Plain(id)).
			WithHint("'banger vm jobs' lists a VM's; they go with a restart of the VM, and the oldest that have ended make room for others")
	default:
		return nil, vm.Errorf(vm.CodeInvalid, "the ids of %d jobs begin with %q", n, guest.Plain(id)).WithHint("'banger vm jobs' lists a VM's")
	}
}

// maxJobs is how many of them are told of at once: an answer has 1 MiB at most.
const maxJobs = 1000

func (js *jobs) describe() guest.Jobs {
	js.mu.Lock()
	list := slices.Clone(js.list)
	js.mu.Unlock()
	answer := guest.Jobs{Total: len(list), Jobs: []guest.Job{}}
	for _, j := range list[max(0, len(list)-maxJobs):] {
		answer.Jobs = append(answer.Jobs, j.describe())
	}
	return answer
}
