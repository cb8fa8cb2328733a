package vm

import "time"

// Image is one root file system, stored by digest. One row of table images per name.
type Image struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"` // sha256:<hex> of the root file system's tar stream
	Size      int64     `json:"size"`   // bytes it takes on the host's disk
	CreatedAt time.Time `json:"created_at"`
	Init      string    `json:"init,omitempty"` // the image's own init that is given PID 1; empty: banger-guest stays PID 1
	Env       []string  `json:"env,omitempty"`  // KEY=VALUE for every exec
	Source    string    `json:"source"`         // how it was made, for people: "mmdebstrap bookworm"
}

// Kernel is one guest kernel with its modules, stored by digest. One row of table kernels per name.
type Kernel struct {
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`  // sha256:<hex> over vmlinux and the modules
	Release   string    `json:"release"` // uname -r
	Version   string    `json:"version"` // package version, where it came from one
	Size      int64     `json:"size"`
	CreatedAt time.Time `json:"created_at"`
	Source    string    `json:"source"`
}

// The names that stand for "the default" and are built or imported on first use.
const (
	DefaultImage  = "debian-bookworm"
	DefaultKernel = "debian-6.12-cloud"
)

// Event is one thing that happened, for progress displays and the event stream.
type Event struct {
	Time      time.Time `json:"time"`
	VM        ID        `json:"vm,omitempty"`
	Name      string    `json:"name,omitempty"`   // VM, image or kernel name
	Kind      string    `json:"kind"`             // "stage", "state", "note", "gone"
	Stage     string    `json:"stage,omitempty"`  // image, kernel, disk, boot, agent, stop, remove
	Status    string    `json:"status,omitempty"` // of a stage: begin, end, failed
	State     State     `json:"state,omitempty"`
	Text      string    `json:"text,omitempty"`
	ElapsedMs int64     `json:"elapsed_ms,omitempty"` // of a stage that ended
}

// Report receives events as they happen; it must return quickly. Nil-safe use: Report.Send.
type Report func(Event)

// Send calls r unless it is nil.
func (r Report) Send(e Event) {
	if r == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r(e)
}

// Stage reports the begin of a stage and returns the function that reports its end: with nil "end", else "failed".
func (r Report) Stage(base Event, stage string) func(error) {
	start := time.Now()
	base.Kind, base.Stage, base.Status = "stage", stage, "begin"
	r.Send(base)
	return func(err error) {
		e := base
		e.Time, e.Status, e.ElapsedMs = time.Time{}, "end", time.Since(start).Milliseconds()
		if err != nil {
			e.Status, e.Text = "failed", err.Error()
		}
		r.Send(e)
	}
}
