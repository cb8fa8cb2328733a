package agent

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper is the only one in this program that waits for children. A child is started and registered under one lock,
// and reaped under it, so no exit status goes to the wrong one or is lost, however short a life.
//
// It waits for SIGCHLD, not in wait4: a thread that blocks in a system call keeps its share of the Go scheduler until
// the runtime's monitor notices, and under emulation that costs each exec milliseconds.
type reaper struct {
	orphans bool // PID 1: reap whatever the kernel gives us

	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
	none    chan struct{} // closed while there are no children at all; kept only with orphans
}

// newReaper makes a reaper; with orphans it reaps every child of this process, its own or adopted. stop ends it.
func newReaper(orphans bool) (r *reaper, stop func()) {
	r = &reaper{orphans: orphans, waiting: map[int]chan syscall.WaitStatus{}, none: make(chan struct{})}
	died := make(chan os.Signal, 1) // signals merge, and so may these: each round takes all there are
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			r.reap()
		}
	}()
	return r, func() {
		signal.Stop(died)
		close(died)
	}
}

// start forks by fork and returns the child's pid and the channel its status will come on.
func (r *reaper) start(fork func() (pid int, err error)) (int, <-chan syscall.WaitStatus, error) {
	exited := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	r.waiting[pid] = exited
	select {
	case <-r.none:
		r.none = make(chan struct{})
	default:
	}
	return pid, exited, nil
}

// reap takes the status of every child that has ended, and hands it to whoever waits.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.orphans {
		for pid := range r.waiting {
			_ = r.take(pid)
		}
		return
	}
	for {
		err := r.take(-1)
		if errors.Is(err, unix.ECHILD) {
			select {
			case <-r.none:
			default:
				close(r.none)
			}
		}
		if err != nil {
			return
		}
	}
}

// errAlive says that none of the children asked for has ended.
var errAlive = errors.New("alive")

// take reaps pid (-1 = any) if it has ended.
func (r *reaper) take(pid int) error {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	switch {
	case err != nil:
		return err
	case got == 0:
		return errAlive
	}
	if exited, ok := r.waiting[got]; ok {
		delete(r.waiting, got)
		exited <- status
	}
	return nil
}

// childless is closed as soon as there are no children, adopted ones included.
func (r *reaper) childless() <-chan struct{} {
	r.reap() // there may have been none ever, and so no signal
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.none
}

// signalGroup signals the process group of a child that has not been reaped, so that its number cannot be another's.
func (r *reaper) signalGroup(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return unix.ESRCH
	}
	return unix.Kill(-pid, sig)
}
