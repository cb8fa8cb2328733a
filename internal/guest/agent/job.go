package agent

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// job is a command that was started for clients, who may come and go.
type job struct {
	s       *Server
	id      string
	process *process
	command string // for people; the request itself may have megabytes
	tty     bool
	linger  time.Duration // of ExecRequest.LingerMs
	journal *journal
	began   time.Time
	done    chan struct{} // closed when exit is there

	mu      sync.Mutex
	keep    bool // it goes on when its clients leave it
	clients map[*client]struct{}
	waiting *time.Timer // runs while a client that was cut off may come back
	over    *time.Timer // its time
	late    bool        // its time was over
	unasked bool        // nobody will ask for it any more
	ended   time.Time
	exit    guest.ExecExit
}

// startJob starts a command. The error is a *startError.
func (s *Server) startJob(req guest.ExecRequest) (*job, error) {
	j := &job{
		s: s, command: guest.Plain(strings.Join(clipped(req.Argv), " ")), tty: req.TTY, linger: milliseconds(req.LingerMs),
		journal: newJournal(s.jobs.budget), began: time.Now(), done: make(chan struct{}),
		keep: req.LingerMs < 0, clients: map[*client]struct{}{},
	}
	p, err := s.start(req, j.journal.stream(guest.FrameStdout), j.journal.stream(guest.FrameStderr))
	if err != nil {
		return nil, err
	}
	j.process = p
	s.jobs.add(j)
	if req.TimeoutMs > 0 {
		j.over = time.AfterFunc(milliseconds(req.TimeoutMs), j.timeOut)
	}
	return j, nil
}

// run sees the command to its end. Its first client must be there.
func (j *job) run() {
	exit := j.process.Wait()
	j.mu.Lock()
	if j.waiting != nil {
		j.waiting.Stop()
	}
	if j.over != nil {
		j.over.Stop()
	}
	if j.late {
		exit = guest.ExecExit{Code: guest.CodeTimeout, TimedOut: true}
	}
	j.exit, j.ended = exit, time.Now()
	unasked := j.unasked
	close(j.done)
	j.mu.Unlock()
	j.journal.close()
	if unasked {
		j.s.jobs.forget(j)
		return
	}
	j.s.jobs.ended(j)
}

// timeOut ends a command whose time is over.
func (j *job) timeOut() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.late = j.process.Terminate()
}

// client is one connection to a job.
type client struct {
	job    *job
	conn   net.Conn
	frames *guest.FrameWriter
	reader *reader
	watch  bool        // it only looks
	told   atomic.Bool // of the command's end
}

// attach adds a client, who gets what was written from an offset on.
func (j *job) attach(conn net.Conn, req guest.AttachRequest) *client {
	c := &client{
		job: j, conn: conn, frames: guest.NewFrameWriter(conn), watch: req.Watch || req.KeptOnly,
		reader: j.journal.attach(req),
	}
	if c.watch {
		return c
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.waiting != nil {
		j.waiting.Stop()
		j.waiting = nil
	}
	j.clients[c] = struct{}{}
	return c
}

// leave ends a client. how is FrameBye, FrameDetach, or another where it was cut off.
func (c *client) leave(how guest.FrameType) {
	c.reader.leave()
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if c.watch {
		return
	}
	delete(j.clients, c)
	if how == guest.FrameDetach {
		j.keep = true
	}
	if j.keep || len(j.clients) > 0 {
		return
	}
	cutOff := how != guest.FrameBye && j.linger != 0
	select {
	case <-j.done:
		if !cutOff && (c.told.Load() || j.linger == 0) { // who left before may come back for it
			j.s.jobs.forget(j)
		}
		return
	default:
	}
	if cutOff {
		j.waiting = time.AfterFunc(j.linger, j.abandon)
		return
	}
	j.unasked = true
	j.process.Hangup()
}

// abandon hangs a command up whose client has not come back.
func (j *job) abandon() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.clients) == 0 && !j.keep {
		j.process.Hangup()
	}
}

// signal sends the command a signal.
func (j *job) signal(name string) error {
	if _, err := parseSignal(name); err != nil {
		return vm.Errorf(vm.CodeInvalid, "%w", err)
	}
	err := j.process.Signal(name)
	if errors.Is(err, unix.ESRCH) {
		return vm.Errorf(vm.CodeConflict, "job %s has ended", j.id)
	}
	return err
}

func (j *job) describe() guest.Job {
	written, kept := j.journal.sizes()
	j.mu.Lock()
	defer j.mu.Unlock()
	d := guest.Job{
		ID: j.id, Command: j.command, State: guest.JobRunning, StartedAt: j.began.UTC().Round(0),
		TTY: j.tty, Stdin: j.process.Stdin != nil, Keep: j.keep, Clients: len(j.clients), Output: written, Kept: kept,
	}
	if j.ended.IsZero() {
		return d
	}
	d.State, d.Code, d.Signal, d.TimedOut, d.EndedAt = guest.JobExited, j.exit.Code, j.exit.Signal, j.exit.TimedOut, j.ended.UTC().Round(0)
	if d.Signal != "" || d.TimedOut {
		d.State = guest.JobKilled
	}
	return d
}

// milliseconds is a request's span, which may be any number.
func milliseconds(n int64) time.Duration {
	const most = 1 << 43 // some 280 years
	return time.Duration(max(-1, min(n, most))) * time.Millisecond
}

// clipped is as much of argv as is ever shown, so that joining it costs nothing.
func clipped(argv []string) []string {
	const most = 64
	return argv[:min(len(argv), most)]
}

// failed is the exit of a command that did not start.
func failed(err error) guest.ExecExit {
	if e := (*startError)(nil); errors.As(err, &e) {
		return e.exit
	}
	return guest.ExecExit{Code: codeCannot, Reason: err.Error()}
}
