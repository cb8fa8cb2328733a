package cli

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/host/logfile"
	"banger/internal/vm"
)

// fakeJob is a command of the fake guest. It keeps all frames that it ever sent, but for an argument "forgetful": then its
// first four bytes of output are lost to who comes later; or "lively": then it writes four bytes just before a client comes,
// which is cut off.
type fakeJob struct {
	id      string
	req     guest.ExecRequest
	started time.Time

	mu      sync.Mutex
	changed *sync.Cond
	cmd     *exec.Cmd // nil before it runs
	stdin   io.WriteCloser
	tty     *os.File
	frames  []fakeFrame
	timeout bool
	exit    *guest.ExecExit
}

type fakeFrame struct {
	kind guest.FrameType
	p    []byte
	when time.Time
}

// newJob makes a job. Their ids are of this form, counted.
func (f *fake) newJob(e guest.ExecRequest) *fakeJob {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun++
	j := &fakeJob{id: fmt.Sprintf("%02da0b1c2d3e4", f.begun), req: e, started: time.Now()}
	j.changed = sync.NewCond(&j.mu)
	f.jobs = append(f.jobs, j)
	return j
}

func (f *fake) forget(j *fakeJob) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.jobs = slices.DeleteFunc(f.jobs, func(other *fakeJob) bool { return other == j })
}

func (j *fakeJob) change(by func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	by()
	j.changed.Broadcast()
}

func (j *fakeJob) began(cmd *exec.Cmd, stdin io.WriteCloser, tty *os.File) {
	j.change(func() { j.cmd, j.stdin, j.tty = cmd, stdin, tty })
}

func (j *fakeJob) end(exit guest.ExecExit) { j.change(func() { j.exit = &exit }) }

func (j *fakeJob) late() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.timeout
}

func (j *fakeJob) signal(sig syscall.Signal, late bool) {
	j.change(func() {
		j.timeout = j.timeout || late
		if j.cmd != nil && j.exit == nil {
			_ = syscall.Kill(-j.cmd.Process.Pid, sig)
		}
	})
}

type fakeStream struct {
	j    *fakeJob
	kind guest.FrameType
}

func (j *fakeJob) stream(kind guest.FrameType) io.Writer { return fakeStream{j, kind} }

func (s fakeStream) Write(p []byte) (int, error) {
	s.j.change(func() { s.j.frames = append(s.j.frames, fakeFrame{s.kind, slices.Clone(p), time.Now()}) })
	return len(p), nil
}

// serve joins a client to the job, and returns how it left: by a frame, or 0 when it was cut off. Before the client is told of
// the job's end, and can ask what jobs there are, ended is called.
func (j *fakeJob) serve(g *guestConn, from int64, ended func()) guest.FrameType {
	how := make(chan guest.FrameType, 1)
	j.mu.Lock()
	for j.cmd == nil && j.exit == nil {
		j.changed.Wait()
	}
	did := j.cmd != nil
	j.mu.Unlock()
	if did {
		j.tell(g, from)
	}
	left := false
	go func() {
		kind := j.listen(g)
		if did && (kind == 0 || kind == guest.FrameBye) && j.req.LingerMs >= 0 {
			j.signal(syscall.SIGKILL, false) // the fake is not patient
		}
		j.change(func() { left = true })
		how <- kind
	}()
	for i := 0; ; i++ {
		j.mu.Lock()
		for i >= len(j.frames) && j.exit == nil && !left {
			j.changed.Wait()
		}
		switch {
		case left:
			j.mu.Unlock()
			return <-how
		case i >= len(j.frames):
			exit := *j.exit
			j.mu.Unlock()
			ended()
			b, _ := json.Marshal(exit)
			g.out.Write(guest.FrameExit, b)
			return <-how
		}
		frame := j.frames[i]
		j.mu.Unlock()
		skip := min(from, int64(len(frame.p)))
		if from -= skip; skip < int64(len(frame.p)) {
			g.give(frame, skip)
		}
	}
}

// give passes on what is behind so many bytes of a frame, with its time where that was asked for.
func (g *guestConn) give(f fakeFrame, skip int64) {
	if g.times {
		g.out.Write(guest.FrameTime, binary.BigEndian.AppendUint64(nil, uint64(f.when.UnixNano())))
	}
	g.out.Write(f.kind, f.p[skip:])
}

// tell says what a client is joined to, and where it begins.
func (j *fakeJob) tell(g *guestConn, from int64) {
	at := min(from, j.describe().Output)
	knows := j.req.Argv[len(j.req.Argv)-1] != "timeless"
	b, _ := json.Marshal(guest.JobStarted{Job: j.id, At: &at, Times: knows, Tail: knows})
	g.out.Write(guest.FrameStarted, b)
}

// listen obeys a client until it leaves.
func (j *fakeJob) listen(g *guestConn) guest.FrameType {
	for {
		t, p, err := g.in.Next()
		if err != nil {
			return 0
		}
		switch t {
		case guest.FrameBye, guest.FrameDetach:
			return t
		case guest.FrameStdin:
			if j.stdin != nil {
				j.stdin.Write(p)
			}
		case guest.FrameStdinClose:
			if j.tty == nil && j.stdin != nil {
				j.stdin.Close()
			}
		case guest.FrameResize:
			pty.Setsize(j.tty, &pty.Winsize{Rows: binary.BigEndian.Uint16(p), Cols: binary.BigEndian.Uint16(p[2:])})
		case guest.FrameSignal:
			j.signal(unix.SignalNum(string(p)), false)
		}
	}
}

func (j *fakeJob) describe() guest.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	d := guest.Job{ID: j.id, Command: strings.Join(j.req.Argv, " "), State: guest.JobRunning, StartedAt: j.started,
		TTY: j.req.TTY, Stdin: j.stdin != nil, Keep: j.req.LingerMs < 0}
	for _, f := range j.frames {
		d.Output += int64(len(f.p))
	}
	d.Kept = d.Output
	if j.exit != nil {
		d.State, d.Code, d.Signal, d.TimedOut, d.EndedAt = guest.JobExited, j.exit.Code, j.exit.Signal, j.exit.TimedOut, time.Now()
		if d.Signal != "" || d.TimedOut {
			d.State = guest.JobKilled
		}
	}
	return d
}

func (f *fake) job(id string) (*fakeJob, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range f.jobs {
		if id != "" && strings.HasPrefix(j.id, id) {
			return j, nil
		}
	}
	return nil, vm.Errorf(vm.CodeNotFound, "there is no job %q", id)
}

func (f *fake) listJobs(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if err := f.await(r, record); err != nil {
		refuse(w, err)
		return
	}
	f.mu.Lock()
	all := guest.Jobs{Total: len(f.jobs), Jobs: []guest.Job{}}
	for _, j := range f.jobs {
		all.Jobs = append(all.Jobs, j.describe())
	}
	f.mu.Unlock()
	answer(w, all)
}

func (f *fake) attach(w http.ResponseWriter, r *http.Request) {
	var req guest.AttachRequest
	json.NewDecoder(r.Body).Decode(&req)
	j, err := f.job(req.Job)
	if err != nil {
		refuse(w, err)
		return
	}
	conn, g := upgradeTo(w, guest.UpgradeExec)
	defer conn.Close()
	if len(j.req.Argv) > 1 && j.req.Argv[len(j.req.Argv)-1] == "forgetful" {
		req.From = 4
		g.out.Write(guest.FrameDropped, []byte{0, 0, 0, 0, 0, 0, 0, 4})
	}
	if len(j.req.Argv) > 1 && j.req.Argv[len(j.req.Argv)-1] == "lively" {
		j.stream(guest.FrameStdout).Write([]byte("more"))
		j.tell(g, req.From)
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, frame := range j.frames {
			skip := min(req.From, int64(len(frame.p)))
			req.From -= skip
			g.out.Write(frame.kind, frame.p[skip:])
		}
		return
	}
	g.times = req.Times
	if req.Since != nil {
		req.From = j.before(req.Since)
	}
	if req.Tail != nil {
		req.From = max(req.From, j.beforeLast(*req.Tail))
	}
	if !req.KeptOnly {
		j.serve(g, req.From, func() {})
		return
	}
	j.tell(g, req.From)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, frame := range j.frames {
		if skip := min(req.From, int64(len(frame.p))); skip < int64(len(frame.p)) && (req.Until == nil || !frame.when.After(req.Until.Time(time.Now()))) {
			g.give(frame, skip)
		}
		req.From -= min(req.From, int64(len(frame.p)))
	}
	g.out.Write(guest.FrameKept, nil)
}

// before is how much the job had written at a moment.
func (j *fakeJob) before(m *guest.Moment) (n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.frames {
		if f.when.Before(m.Time(time.Now())) {
			n += int64(len(f.p))
		}
	}
	return n
}

// beforeLast is how much the job has written before so many last lines.
func (j *fakeJob) beforeLast(lines int) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []byte
	for _, f := range j.frames {
		all = append(all, f.p...)
	}
	return int64(len(all) - len(logfile.LastLines(all, lines)))
}

func (f *fake) signalJob(w http.ResponseWriter, r *http.Request) {
	var req guest.SignalRequest
	json.NewDecoder(r.Body).Decode(&req)
	j, err := f.job(req.Job)
	if err == nil && j.describe().State != guest.JobRunning {
		err = vm.Errorf(vm.CodeConflict, "job %s has ended", j.id)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	j.signal(unix.SignalNum("SIG"+strings.TrimPrefix(req.Signal, "SIG")), false)
	w.WriteHeader(http.StatusNoContent)
}
