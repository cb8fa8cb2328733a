package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// jobsAgent is an agent and a client of it.
func jobsAgent(t *testing.T) (s *Server, socket string, c *guest.Client) {
	t.Helper()
	s, socket = serveAgent(t)
	return s, socket, guest.NewClient(func(context.Context) (net.Conn, error) { return net.Dial("unix", socket) })
}

// kept makes a command that outlives its clients.
func kept(script string) guest.ExecRequest {
	return guest.ExecRequest{Argv: []string{"sh", "-c", script}, Dir: "/", LingerMs: guest.Linger}
}

// began waits for the start of a job, and returns its id.
func (e *execStream) began(t *testing.T) string {
	t.Helper()
	kind, b, err := e.in.Next()
	if err != nil || kind != guest.FrameStarted {
		t.Fatalf("instead of the start: frame %d, %q, %v", kind, b, err)
	}
	var j guest.JobStarted
	unmarshal(t, b, &j)
	if len(j.Job) != 12 || j.At == nil {
		t.Fatalf("started as %q", b)
	}
	e.at = *j.At
	return j.Job
}

// leave ends a client as it says, or cut off where it says nothing.
func (e *execStream) leave(t *testing.T, how ...guest.FrameType) {
	t.Helper()
	for _, kind := range how {
		if err := e.out.Write(kind, nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = e.Close()
}

// exit is what a client gets of a job: what was written, what is missing, and the end, which it says that it has.
func (e *execStream) exit(t *testing.T) (r result, dropped uint64) {
	t.Helper()
	for {
		kind, b, err := e.in.Next()
		if err != nil {
			t.Fatalf("stream ended without an exit: %v (stdout %q)", err, tail(r.stdout.String()))
		}
		switch kind {
		case guest.FrameStdout:
			r.stdout.Write(b)
		case guest.FrameStderr:
			r.stderr.Write(b)
		case guest.FrameDropped:
			dropped += binary.BigEndian.Uint64(b)
		case guest.FrameExit:
			unmarshal(t, b, &r.exit)
			e.leave(t, guest.FrameBye)
			return r, dropped
		}
	}
}

func attachTo(t *testing.T, socket string, req guest.AttachRequest) *execStream {
	t.Helper()
	e := dialStream(t, socket, guest.PathAttach, req)
	e.began(t)
	return e
}

// untilJobs polls the list: how a client left arrives later than its leaving.
func untilJobs(t *testing.T, c *guest.Client, what string, is func([]guest.Job) bool) []guest.Job {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		all, err := c.Jobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if is(all.Jobs) {
			return all.Jobs
		}
		if time.Now().After(end) {
			t.Fatalf("never %s: %+v", what, all.Jobs)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func none(all []guest.Job) bool { return len(all) == 0 }

func one(state string) func([]guest.Job) bool {
	return func(all []guest.Job) bool { return len(all) == 1 && all[0].State == state && all[0].Clients == 0 }
}

// fifo is a way to tell a command of a test to go on.
func fifo(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/go"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func goOn(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
}

// Who attaches is told where in the output what follows begins: what it asked for may be more than there is.
func TestWhereAClientBegins(t *testing.T) {
	_, socket, c := jobsAgent(t)
	run := dialExec(t, socket, kept("echo out; echo err >&2; exec sleep 1000"))
	id := run.began(t)
	if run.at != 0 {
		t.Errorf("its own client begins at %d", run.at)
	}
	untilJobs(t, c, "had its output", func(all []guest.Job) bool { return all[0].Output == 8 })
	for from, at := range map[int64]int64{0: 0, 5: 5, 8: 8, 9: 8, math.MaxInt64: 8} {
		e := attachTo(t, socket, guest.AttachRequest{Job: id, From: from})
		if e.at != at {
			t.Errorf("from %d it begins at %d, want %d", from, e.at, at)
		}
		e.leave(t, guest.FrameDetach)
	}
	if err := run.out.Write(guest.FrameSignal, []byte("SIGKILL")); err != nil {
		t.Fatal(err)
	}
	run.exit(t)
}

// A client that was cut off comes back, and has all: what it had already, what it missed, and what comes then.
func TestJobOutlivesItsClient(t *testing.T) {
	_, socket, c := jobsAgent(t)
	first, second := fifo(t), fifo(t)
	e := dialExec(t, socket, kept(fmt.Sprintf("echo one; read x < %s; echo two; echo err >&2; read x < %s; echo three; exit 7", first, second)))
	id := e.began(t)
	e.readUntil(t, "one")
	e.leave(t)
	untilJobs(t, c, "left", one(guest.JobRunning))
	goOn(t, first)
	back := attachTo(t, socket, guest.AttachRequest{Job: id[:4]})
	back.readUntil(t, "two")
	rest := attachTo(t, socket, guest.AttachRequest{Job: id, From: int64(len("one\n"))})
	goOn(t, second)
	if r, dropped := rest.exit(t); r.stdout.String() != "two\nthree\n" || r.stderr.String() != "err\n" || r.exit.Code != 7 || dropped != 0 {
		t.Errorf("stdout %q, stderr %q, %+v, %d dropped", &r.stdout, &r.stderr, r.exit, dropped)
	}
	if r, _ := back.exit(t); !strings.HasSuffix(r.stdout.String(), "three\n") || r.exit.Code != 7 {
		t.Errorf("the other client: %q, %+v", &r.stdout, r.exit)
	}
	// It is still there for who asks later.
	if r, _ := attachTo(t, socket, guest.AttachRequest{Job: id}).exit(t); r.stdout.String() != "one\ntwo\nthree\n" || r.exit.Code != 7 {
		t.Errorf("after its end: %q, %+v", &r.stdout, r.exit)
	}
	j := untilJobs(t, c, "ended", one(guest.JobExited))[0]
	if j.ID != id || j.Code != 7 || !strings.HasPrefix(j.Command, "sh -c echo one") || !j.Keep || j.Output != 18 || j.Kept != 18 || j.EndedAt.Before(j.StartedAt) {
		t.Errorf("%+v", j)
	}
}

func TestHowClientsLeave(t *testing.T) {
	const long = "echo begun; exec sleep 1000"
	for _, tt := range []struct {
		name     string
		lingerMs int64
		how      []guest.FrameType
		goesOn   bool
	}{
		{"an ordinary command's is cut off", 0, nil, false},
		{"cut off", time.Hour.Milliseconds(), nil, true},
		{"cut off, and does not come back", 1, nil, false},
		{"hangs up", time.Hour.Milliseconds(), []guest.FrameType{guest.FrameBye}, false},
		{"detaches", time.Hour.Milliseconds(), []guest.FrameType{guest.FrameDetach}, true},
		{"a kept command's hangs up", guest.Linger, []guest.FrameType{guest.FrameBye}, true},
		{"a kept command's is cut off", guest.Linger, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, socket, c := jobsAgent(t)
			req := kept(long)
			req.LingerMs = tt.lingerMs
			e := dialExec(t, socket, req)
			id := e.began(t)
			e.readUntil(t, "begun")
			e.leave(t, tt.how...)
			if tt.goesOn {
				untilJobs(t, c, "left", one(guest.JobRunning))
				if err := c.SignalJob(t.Context(), guest.SignalRequest{Job: id, Signal: "KILL"}); err != nil {
					t.Error(err)
				}
				if j := untilJobs(t, c, "killed", one(guest.JobKilled))[0]; j.Signal != "SIGKILL" || j.Code != 137 {
					t.Errorf("%+v", j)
				}
				return
			}
			untilJobs(t, c, "hung up", func(all []guest.Job) bool {
				return len(all) == 0 || tt.lingerMs == 1 && all[0].State == guest.JobKilled && all[0].Signal == "SIGHUP"
			})
		})
	}
}

// A client that hangs up behind input nobody reads hangs up all the same.
func TestClientHangsUpBehindInput(t *testing.T) {
	s, socket, c := jobsAgent(t)
	s.stuckInput = 100 * time.Millisecond
	req := kept("echo begun; exec sleep 1000")
	req.Stdin, req.LingerMs = true, time.Hour.Milliseconds()
	e := dialExec(t, socket, req)
	e.began(t)
	e.readUntil(t, "begun")
	if err := e.out.Write(guest.FrameStdin, make([]byte, stdinBuffer+guest.MaxFrame)); err != nil {
		t.Fatal(err)
	}
	e.leave(t, guest.FrameBye)
	untilJobs(t, c, "hung up", none)
}

// An ordinary session that came to its end is nothing to be listed, unless its client was cut off before it had the end.
func TestEndedSessions(t *testing.T) {
	_, socket, c := jobsAgent(t)
	req := kept("echo out; exit 3")
	req.LingerMs = time.Hour.Milliseconds()
	e := dialExec(t, socket, req)
	e.began(t)
	if r, _ := e.exit(t); r.exit.Code != 3 {
		t.Errorf("%+v", r.exit)
	}
	untilJobs(t, c, "forgotten", none)

	e = dialExec(t, socket, req)
	id := e.began(t)
	untilJobs(t, c, "ended", func(all []guest.Job) bool { return len(all) == 1 && all[0].State == guest.JobExited })
	e.leave(t)
	untilJobs(t, c, "left", one(guest.JobExited))
	if r, _ := attachTo(t, socket, guest.AttachRequest{Job: id}).exit(t); r.stdout.String() != "out\n" || r.exit.Code != 3 {
		t.Errorf("%q, %+v", &r.stdout, r.exit)
	}
	untilJobs(t, c, "forgotten", none)
}

// Who leaves amid the output of a job that has ended, as head does, has not had the end: it is still there to be asked for.
func TestLeavingBeforeTheEnd(t *testing.T) {
	_, socket, c := jobsAgent(t)
	req := kept("seq 1 150000")
	req.LingerMs = time.Hour.Milliseconds()
	e := dialExec(t, socket, req)
	id := e.began(t)
	e.leave(t)
	untilJobs(t, c, "ended", one(guest.JobExited))
	e = attachTo(t, socket, guest.AttachRequest{Job: id})
	if _, _, err := e.in.Next(); err != nil {
		t.Fatal(err)
	}
	e.leave(t, guest.FrameBye)
	if r, _ := attachTo(t, socket, guest.AttachRequest{Job: id}).exit(t); !strings.HasSuffix(r.stdout.String(), "\n150000\n") {
		t.Errorf("it ends with %q, and %+v", tail(r.stdout.String()), r.exit)
	}
	untilJobs(t, c, "forgotten", none)
}

// A client that comes back in time stops the wait for it.
func TestAClientComesBackInTime(t *testing.T) {
	_, socket, c := jobsAgent(t)
	req := kept("echo begun; exec sleep 1000")
	req.LingerMs = 400
	e := dialExec(t, socket, req)
	id := e.began(t)
	e.leave(t)
	back := attachTo(t, socket, guest.AttachRequest{Job: id})
	<-time.After(600 * time.Millisecond)
	untilJobs(t, c, "attached", func(all []guest.Job) bool { return len(all) == 1 && all[0].State == guest.JobRunning })
	back.leave(t, guest.FrameBye)
	untilJobs(t, c, "hung up", none)
}

func TestJobDropsTheOldest(t *testing.T) {
	_, socket, c := jobsAgent(t)
	const lines = 300_000 // of seven bytes and more, each another
	e := dialExec(t, socket, kept("seq 1000001 "+strconv.Itoa(1000000+lines)))
	id := e.began(t)
	e.leave(t)
	j := untilJobs(t, c, "ended", one(guest.JobExited))[0]
	if j.Output != lines*8 || j.Kept > guest.KeptOutput {
		t.Errorf("%+v", j)
	}
	r, dropped := attachTo(t, socket, guest.AttachRequest{Job: id}).exit(t)
	if int64(dropped) < j.Output-j.Kept || int64(dropped)+int64(r.stdout.Len()) != j.Output {
		t.Errorf("%d dropped, %d bytes came; %+v", dropped, r.stdout.Len(), j)
	}
	got := r.stdout.String()
	for n := 1000000 + lines; len(got) >= 8; n-- {
		if got[len(got)-8:] != strconv.Itoa(n)+"\n" {
			t.Fatalf("%q where %d was written", got[len(got)-8:], n)
		}
		got = got[:len(got)-8]
	}
}

func TestWhoOnlyLooks(t *testing.T) {
	_, socket, c := jobsAgent(t)
	req := kept("echo one; read x; echo got $x")
	req.Stdin, req.LingerMs = true, time.Hour.Milliseconds()
	e := dialExec(t, socket, req)
	id := e.began(t)
	e.readUntil(t, "one")
	now := attachTo(t, socket, guest.AttachRequest{Job: id, KeptOnly: true})
	if kind, b, err := now.in.Next(); err != nil || kind != guest.FrameStdout || string(b) != "one\n" {
		t.Errorf("frame %d, %q, %v", kind, b, err)
	}
	if kind, _, err := now.in.Next(); err != nil || kind != guest.FrameKept {
		t.Errorf("frame %d, %v at the end of what was kept", kind, err)
	}
	now.leave(t, guest.FrameBye)
	watch := attachTo(t, socket, guest.AttachRequest{Job: id, Watch: true})
	for kind, p := range map[guest.FrameType]string{guest.FrameStdin: "not mine\n", guest.FrameSignal: "KILL", guest.FrameStdinClose: ""} {
		if err := watch.out.Write(kind, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	watch.readUntil(t, "one")
	other := attachTo(t, socket, guest.AttachRequest{Job: id, Watch: true})
	other.leave(t, guest.FrameBye)
	e.leave(t, guest.FrameDetach)
	untilJobs(t, c, "left", one(guest.JobRunning))
	// Input comes from whoever is attached.
	back := attachTo(t, socket, guest.AttachRequest{Job: id})
	if err := back.out.Write(guest.FrameStdin, []byte("mine\n")); err != nil {
		t.Fatal(err)
	}
	if r, _ := back.exit(t); r.stdout.String() != "one\ngot mine\n" {
		t.Errorf("%q", &r.stdout)
	}
	if r, _ := watch.exit(t); r.stdout.String() != "got mine\n" {
		t.Errorf("who watched got %q", &r.stdout)
	}
}

func TestExecTimeout(t *testing.T) {
	s, socket := serveAgent(t)
	s.hangupGrace = 300 * time.Millisecond
	for _, tt := range []struct{ name, script, out string }{
		{"ends at SIGTERM", "trap 'echo term; exit 5' TERM; echo begun; while :; do sleep 0.05; done", "begun\nterm\n"},
		{"ignores SIGTERM", "trap '' TERM; echo begun; while :; do sleep 0.05; done", "begun\n"},
		{"has children that ignore it", "(trap '' TERM; sleep 1000) & trap '' TERM; echo begun; wait", "begun\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := sh(tt.script)
			req.TimeoutMs = 500
			if r := run(t, socket, req); r.exit != (guest.ExecExit{Code: 124, TimedOut: true}) || r.stdout.String() != tt.out {
				t.Errorf("%+v, %q", r.exit, &r.stdout)
			}
		})
	}
	t.Run("ends in time", func(t *testing.T) {
		req := sh("exit 4")
		req.TimeoutMs = time.Hour.Milliseconds()
		if r := run(t, socket, req); r.exit != (guest.ExecExit{Code: 4}) {
			t.Errorf("%+v", r.exit)
		}
	})
}

func TestJobsRefuse(t *testing.T) {
	_, socket, c := jobsAgent(t)
	e := dialExec(t, socket, kept("exit 0"))
	id := e.began(t)
	e.exit(t)
	untilJobs(t, c, "ended", one(guest.JobExited))
	for _, tt := range []struct {
		req  guest.SignalRequest
		code vm.Code
	}{
		{guest.SignalRequest{Job: "nope", Signal: "TERM"}, vm.CodeNotFound},
		{guest.SignalRequest{Job: "", Signal: "TERM"}, vm.CodeNotFound},
		{guest.SignalRequest{Job: id, Signal: "NOPE"}, vm.CodeInvalid},
		{guest.SignalRequest{Job: id, Signal: "TERM"}, vm.CodeConflict},
	} {
		if err := c.SignalJob(t.Context(), tt.req); vm.CodeOf(err) != tt.code {
			t.Errorf("%+v: %v", tt.req, err)
		}
	}
}

// Those that have ended are kept up to a number, and what nobody reads any more makes room for what is written.
func TestOldJobsMakeRoom(t *testing.T) {
	s, socket, c := jobsAgent(t)
	var first string
	for i := range guest.KeptEnded + 3 {
		e := dialExec(t, socket, kept("echo "+strconv.Itoa(i)))
		id := e.began(t)
		e.exit(t)
		if i == 3 {
			first = id
		}
		untilJobs(t, c, "ended", func(all []guest.Job) bool {
			return len(all) == min(i+1, guest.KeptEnded) && all[len(all)-1].State == guest.JobExited
		})
	}
	if all := untilJobs(t, c, "listed", func([]guest.Job) bool { return true }); all[0].ID != first || all[0].Command != "sh -c echo 3" {
		t.Errorf("the oldest is %+v", all[0])
	}
	s.jobs.budget.limit = s.jobs.budget.used.Load() + 100
	e := dialExec(t, socket, kept("head -c 1000 /dev/zero"))
	e.began(t)
	e.exit(t)
	all := untilJobs(t, c, "ended", func(all []guest.Job) bool { return all[len(all)-1].State == guest.JobExited })
	if last := all[len(all)-1]; last.Kept != 1000 || len(all) >= guest.KeptEnded || all[0].ID == first {
		t.Errorf("%d jobs, the last %+v", len(all), last)
	}
}
