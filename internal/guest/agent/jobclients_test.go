package agent

import (
	"math"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
)

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
