package agent

import (
	"context"
	"encoding/binary"
	"fmt"
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
