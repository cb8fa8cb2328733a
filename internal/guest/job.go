package guest

import (
	"strings"
	"time"
)

// A job is a command that an exec started, with what it wrote. It is kept by the guest's agent, and goes with the guest's
// boot. Clients attach to it and leave it: a command that was started to outlive them does.

// What an agent keeps of jobs.
const (
	KeptOutput = 1 << 20 // bytes of one job's output, its newest; fewer where all jobs together would take too much
	KeptEnded  = 64      // jobs that have ended, the newest
)

// States of a Job.
const (
	JobRunning = "running"
	JobExited  = "exited" // by itself
	JobKilled  = "killed" // by a signal, or since its time was over
)

// JobStarted is the payload of FrameStarted. It comes before any output.
type JobStarted struct {
	Job string `json:"job"` // its id
	// At is how many bytes of the job's output, both streams together, are before what follows. nil: an agent that does not tell.
	At *int64 `json:"at,omitempty"`
	// Times is that the agent knows when output came, and has heeded Since, Until and Times. An older one does not even say no.
	Times bool `json:"times,omitempty"`
	// Tail is that it has heeded Tail.
	Tail bool `json:"tail,omitempty"`
}

// Moment is one of the guest's clock.
type Moment struct {
	At  *time.Time    `json:"at,omitempty"`
	Ago time.Duration `json:"ago_ns,omitempty"` // before its now; where At is nil
}

// Time is the moment, by a clock that says now.
func (m Moment) Time(now time.Time) time.Time {
	if m.At == nil {
		return now.Add(-m.Ago)
	}
	return *m.At
}

// AttachRequest joins a client to a job: FrameStarted, what was kept of its output, what it writes from then on, and its exit.
type AttachRequest struct {
	Job  string `json:"job"`            // its id, or a unique beginning of it
	From int64  `json:"from,omitempty"` // how many bytes of its output, both streams together, the client has already
	// KeptOnly ends the stream behind what was kept. With it the client only looks: it is nobody whose leaving matters.
	KeptOnly bool `json:"kept_only,omitempty"`
	// Watch has the client only look as well, but follow.
	Watch bool `json:"watch,omitempty"`

	// Since leaves out what came before, as From does, and Until ends the stream before the first that came later, of what was
	// written when the client came. Times has FrameTime before what came at another time than what is before it.
	Since *Moment `json:"since,omitempty"`
	Until *Moment `json:"until,omitempty"`
	Times bool    `json:"times,omitempty"`

	// Tail leaves out what is before so many last lines, likewise of what was written when the client came, and before Until: lines of
	// both streams together, as they would be on a terminal. nil: all.
	Tail *int `json:"tail,omitempty"`

	Rows uint16 `json:"rows,omitempty"` // of its terminal, where it has one
	Cols uint16 `json:"cols,omitempty"`
}

// SignalRequest sends a job's process group a signal.
type SignalRequest struct {
	Job    string `json:"job"`
	Signal string `json:"signal"` // "SIGINT", "INT" or "2"
}

// Jobs are those of a guest, oldest first. Where there are more than an answer holds, the first are left out.
type Jobs struct {
	Total int   `json:"total"`
	Jobs  []Job `json:"jobs"`
}

// Job is one of a guest's.
type Job struct {
	ID        string    `json:"id"`
	Command   string    `json:"command"` // its arguments; at most 256 bytes
	State     string    `json:"state"`   // one of Job*
	Code      int       `json:"code"`    // of one that has ended, as ExecExit has it
	Signal    string    `json:"signal,omitempty"`
	TimedOut  bool      `json:"timed_out,omitempty"`
	StartedAt time.Time `json:"started_at"` // by the guest's clock, as it was then
	EndedAt   time.Time `json:"ended_at,omitzero"`
	TTY       bool      `json:"tty,omitempty"`
	Stdin     bool      `json:"stdin,omitempty"` // it reads what clients give it
	Keep      bool      `json:"keep"`            // it goes on when its clients leave it
	Clients   int       `json:"clients"`         // attached now
	Output    int64     `json:"output"`          // bytes it has written
	Kept      int64     `json:"kept"`            // of these, how many are kept
}

// MatchJob finds the job of an id, or of which it is a unique beginning, among all ids. n is how many it may mean; at is the one
// where n is 1.
func MatchJob(all []string, id string) (at, n int) {
	for i, other := range all {
		if other == id && id != "" {
			return i, 1
		}
		if id != "" && strings.HasPrefix(other, id) {
			at = i
			n++
		}
	}
	return at, n
}

// plain bounds what a guest says of a job.
func (j *Job) plain() {
	for _, s := range []*string{&j.ID, &j.Command, &j.State, &j.Signal} {
		*s = Plain(*s)
	}
}
