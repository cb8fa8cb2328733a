package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// scripted answers as an agent would, and returns the frames it got.
func scripted(t *testing.T, script func(in *FrameReader, out *FrameWriter)) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		script(NewFrameReader(theirs), NewFrameWriter(theirs))
		_ = theirs.Close()
	}()
	t.Cleanup(func() { _ = ours.Close(); <-done })
	return ours
}

func exitFrame(e ExecExit) []byte {
	b, _ := json.Marshal(e)
	return b
}

func TestRunExec(t *testing.T) {
	input := strings.Repeat("x", 3*stdinChunk+7)
	conn := scripted(t, func(in *FrameReader, out *FrameWriter) {
		_ = out.Write(FrameStarted, nil)
		n := 0
		for {
			kind, p, err := in.Next()
			if err != nil {
				t.Error(err)
				return
			}
			if n += len(p); kind == FrameStdinClose {
				break
			}
			if len(p) > stdinChunk {
				t.Errorf("a frame of %d bytes", len(p))
			}
		}
		if n != len(input) {
			t.Errorf("%d bytes of input", n)
		}
		_ = out.Write(FrameStderr, []byte("err"))
		_ = out.Write(FrameStdout, []byte("out"))
		_ = out.Write(FrameExit, exitFrame(ExecExit{Code: 7}))
	})
	var stdout, stderr bytes.Buffer
	started := false
	exit, err := RunExec(t.Context(), conn, Stdio{In: strings.NewReader(input), Out: &stdout, Err: &stderr, Started: func(JobStarted) { started = true }})
	if err != nil || exit.Code != 7 || stdout.String() != "out" || stderr.String() != "err" || !started {
		t.Errorf("%+v, %v, %q, %q, started %v", exit, err, &stdout, &stderr, started)
	}
}

// TestRunExecEnds: the end does not wait for input that never comes.
func TestRunExecEnds(t *testing.T) {
	blocked, _ := io.Pipe()
	conn := scripted(t, func(_ *FrameReader, out *FrameWriter) {
		_ = out.Write(FrameExit, exitFrame(ExecExit{Code: 130, Signal: "SIGINT"}))
	})
	exit, err := RunExec(t.Context(), conn, Stdio{In: blocked})
	if err != nil || exit.Signal != "SIGINT" {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestRunExecEvents(t *testing.T) {
	conn := scripted(t, func(in *FrameReader, out *FrameWriter) {
		for range 2 {
			kind, p, err := in.Next()
			switch {
			case err != nil:
				t.Error(err)
			case kind == FrameResize && !bytes.Equal(p, []byte{1, 0, 0, 80}):
				t.Errorf("resize %v", p)
			case kind == FrameSignal && string(p) != "SIGTERM":
				t.Errorf("signal %q", p)
			}
		}
		_ = out.Write(FrameExit, exitFrame(ExecExit{}))
	})
	sizes, signals := make(chan Size, 1), make(chan string, 1)
	sizes <- Size{Rows: 256, Cols: 80}
	signals <- "SIGTERM"
	close(sizes)
	close(signals)
	if _, err := RunExec(t.Context(), conn, Stdio{Resize: sizes, Signals: signals}); err != nil {
		t.Error(err)
	}
}

func TestRunExecBroken(t *testing.T) {
	full := errors.New("disk full")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	tests := map[string]struct {
		ctx    context.Context
		script func(*FrameReader, *FrameWriter)
		out    io.Writer
		check  func(error) bool
	}{
		"closed at once": {t.Context(), func(*FrameReader, *FrameWriter) {}, nil,
			func(err error) bool {
				return vm.CodeOf(err) == vm.CodeUnavailable && errors.Is(err, io.ErrUnexpectedEOF)
			}},
		"closed after output": {t.Context(), func(_ *FrameReader, out *FrameWriter) { _ = out.Write(FrameStdout, []byte("x")) }, nil,
			func(err error) bool { return vm.CodeOf(err) == vm.CodeUnavailable }},
		"exit that is no JSON": {t.Context(), func(_ *FrameReader, out *FrameWriter) { _ = out.Write(FrameExit, []byte("{")) }, nil,
			func(err error) bool { return vm.CodeOf(err) == vm.CodeInternal }},
		"nobody takes output": {t.Context(), func(_ *FrameReader, out *FrameWriter) { _ = out.Write(FrameStdout, []byte("x")) }, failing{full},
			func(err error) bool { return errors.Is(err, full) }},
		"context": {ctx, func(in *FrameReader, _ *FrameWriter) { _, _, _ = in.Next() }, nil,
			func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			exit, err := RunExec(tt.ctx, scripted(t, tt.script), Stdio{Out: tt.out})
			if err == nil || !tt.check(err) || exit != (ExecExit{}) {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	_ = w.Write(FrameStdout, []byte("hello"))
	_ = w.Write(FrameExit, exitFrame(ExecExit{}))
	f.Add(b.Bytes())
	f.Add([]byte{16, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		var again bytes.Buffer
		r, w := NewFrameReader(bytes.NewReader(in)), NewFrameWriter(&again)
		for {
			kind, p, err := r.Next()
			if err != nil {
				break
			}
			if len(p) > MaxFrame {
				t.Fatalf("a frame of %d bytes", len(p))
			}
			_ = w.Write(kind, p)
		}
		if !bytes.HasPrefix(in, again.Bytes()) {
			t.Errorf("frames %x read from %x", again.Bytes(), in)
		}
	})
}

// TestRunExecLeaves: however it comes to its end, the guest learns that the client was not cut off.
func TestRunExecLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for name, tt := range map[string]struct {
		ctx  context.Context
		stop func(s *Stdio) // called when the command has begun
		exit bool
		want FrameType
	}{
		"it has the exit": {t.Context(), func(*Stdio) {}, true, FrameBye},
		"interrupted":     {ctx, func(*Stdio) { cancel() }, false, FrameBye},
		"detached":        {t.Context(), nil, false, FrameDetach},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan FrameType, 1)
			conn := scripted(t, func(in *FrameReader, out *FrameWriter) {
				_ = out.Write(FrameStarted, []byte(`{"job":"0123456789ab"}`))
				_ = out.Write(FrameDropped, []byte{0, 0, 0, 0, 0, 0, 1, 2})
				if tt.exit {
					_ = out.Write(FrameExit, exitFrame(ExecExit{Code: 3}))
				}
				kind, _, _ := in.Next()
				got <- kind
			})
			detach := make(chan struct{})
			var job string
			var dropped uint64
			s := Stdio{Started: func(j JobStarted) { job = j.Job }, Detach: detach}
			s.Dropped = func(n uint64) {
				if dropped = n; tt.stop != nil {
					tt.stop(&s)
				} else {
					close(detach)
				}
			}
			exit, err := RunExec(tt.ctx, conn, s)
			if kind := <-got; kind != tt.want || job != "0123456789ab" || dropped != 258 {
				t.Errorf("it left by frame %d, job %q, %d dropped", kind, job, dropped)
			}
			if tt.exit != (err == nil) || tt.exit != (exit.Code == 3) || errors.Is(err, ErrDetached) != (tt.want == FrameDetach) {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

// Who asked for times gets nothing of an agent that ignored it, and would have it all for what came since.
func TestNoTimes(t *testing.T) {
	for started, want := range map[string]error{`{"job":"0123456789ab","times":true}`: nil, `{"job":"0123456789ab"}`: ErrNoTimes, "": ErrNoTimes} {
		var in, out bytes.Buffer
		w := NewFrameWriter(&in)
		_ = w.Write(FrameStarted, []byte(started))
		_ = w.Write(FrameTime, binary.BigEndian.AppendUint64(nil, 1_500_000_000))
		_ = w.Write(FrameStdout, []byte("old"))
		_ = w.Write(FrameKept, nil)
		var when time.Time
		_, err := receive(NewFrameReader(&in), Stdio{Out: &out, Times: true, When: func(t time.Time) { when = t }})
		if !errors.Is(err, want) || (out.String() == "old") != (want == nil) || when.Equal(time.Unix(1, 500_000_000)) != (want == nil) {
			t.Errorf("started as %q: %v, output %q of %s", started, err, out.String(), when)
		}
	}
}

// Nor does who asked for last lines, and would have them all.
func TestNoTail(t *testing.T) {
	for started, want := range map[string]error{`{"job":"0123456789ab","tail":true}`: nil, `{"job":"0123456789ab","times":true}`: ErrNoTail, "": ErrNoTail} {
		var in, out bytes.Buffer
		w := NewFrameWriter(&in)
		_ = w.Write(FrameStarted, []byte(started))
		_ = w.Write(FrameStdout, []byte("old"))
		_ = w.Write(FrameKept, nil)
		_, err := receive(NewFrameReader(&in), Stdio{Out: &out, Tail: true})
		if !errors.Is(err, want) || (out.String() == "old") != (want == nil) {
			t.Errorf("started as %q: %v, output %q", started, err, out.String())
		}
	}
}

// FuzzReceive: whatever a guest sends, the client comes to an end, and what it is told has the form it should.
func FuzzReceive(f *testing.F) {
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	_ = w.Write(FrameStarted, []byte(`{"job":"0123456789ab"}`))
	_ = w.Write(FrameStdout, []byte("hello"))
	_ = w.Write(FrameTime, []byte{0x80, 0, 0, 0, 0, 0, 0, 0})
	_ = w.Write(FrameDropped, []byte{0, 0, 0, 0, 0, 0, 1, 2})
	_ = w.Write(FrameKept, nil)
	f.Add(b.Bytes())
	f.Add([]byte{19, 0, 0, 0, 1, '{'})
	f.Add([]byte{20, 0, 0, 0, 3, 1, 2, 3, 18, 0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		exit, err := receive(NewFrameReader(bytes.NewReader(in)), Stdio{Out: io.Discard, Err: io.Discard, Dropped: func(uint64) {}, When: func(time.Time) {}, Started: func(j JobStarted) {
			if j.Job != Plain(j.Job) {
				t.Errorf("a job called %q", j.Job)
			}
		}})
		if err != nil && exit != (ExecExit{}) || exit.Reason != Plain(exit.Reason) {
			t.Errorf("%+v, %v", exit, err)
		}
	})
}
