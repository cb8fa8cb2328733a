package guest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"banger/internal/vm"
)

// Stdio is what a command in the guest is joined to. Nil fields are left out.
type Stdio struct {
	In       io.Reader // sent until its end; only for a command with Stdin
	Out, Err io.Writer
	Resize   <-chan Size
	Signals  <-chan string // names as "SIGINT"

	Started func(JobStarted)   // called when the process exists; Job is "" where the agent knows none
	Times   bool               // times were asked for: an agent that does not know them is ErrNoTimes, before any output
	Tail    bool               // last lines were asked for: likewise ErrNoTail
	When    func(time.Time)    // called before output that came at another time than what is before it
	Dropped func(bytes uint64) // called where so much output is missing, since it is not kept any more
	Unheard func()             // called where the guest cannot be told that the client leaves: input is stuck before it
	Detach  <-chan struct{}    // closed when the client leaves the command, which goes on: then the error is ErrDetached
}

// ErrDetached says that the client left a command that goes on.
var ErrDetached = errors.New("detached")

// ErrNoTimes says that an agent of before does not know when output came.
var ErrNoTimes = errors.New("the agent in the guest keeps no times")

// ErrNoTail says that an agent of before does not look for lines in output.
var ErrNoTail = errors.New("the agent in the guest gives no last lines")

// Size is that of a terminal, in characters.
type Size struct{ Rows, Cols uint16 }

// stdinChunk is how much input is read and sent at once.
const stdinChunk = 32 << 10

// farewell bounds the telling of a guest that a client leaves: it may take nothing any more.
const farewell = time.Second

// RunExec joins a command to s until it ends, and closes conn. It returns as soon as the command's end is known, even
// while a Read of s.In waits; that Read is left behind, and what it brings is lost. An error means that the end is not
// known: the connection broke (CodeUnavailable), ctx ended, s was detached, or output could not be written. However it
// comes to its end, the guest is told that this client was not cut off.
func RunExec(ctx context.Context, conn net.Conn, s Stdio) (ExecExit, error) {
	out := NewFrameWriter(conn)
	var leaving sync.Once
	leave := func(how FrameType) {
		leaving.Do(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(farewell)) // input may be stuck
			if out.Write(how, nil) != nil && s.Unheard != nil {
				s.Unheard()
			}
			if how == FrameDetach { // the guest ends the stream: then it is known there
				_ = conn.SetReadDeadline(time.Now().Add(farewell))
				return
			}
			_ = conn.Close()
		})
	}
	defer func() { _ = conn.Close() }()
	defer leave(FrameBye)
	defer context.AfterFunc(ctx, func() { leave(FrameBye) })()
	ended := make(chan struct{})
	defer close(ended)
	if s.In != nil {
		go sendInput(out, s.In)
	}
	go sendEvents(out, s, ended, func() { leave(FrameDetach) })

	exit, err := receive(NewFrameReader(conn), s)
	if err == nil {
		return exit, nil
	}
	select {
	case <-s.Detach:
		err = ErrDetached
	default:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return exit, err
}

// receive handles the agent's frames until the last. Where that is FrameKept the exit is empty. It never returns an exit with an error.
func receive(in *FrameReader, s Stdio) (ExecExit, error) {
	for {
		kind, payload, err := in.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return ExecExit{}, vm.Errorf(vm.CodeUnavailable, "follow the command: the connection to the guest broke: %w", err)
		}
		switch kind {
		case FrameStdout:
			err = deliver(s.Out, payload, "output")
		case FrameStderr:
			err = deliver(s.Err, payload, "error output")
		case FrameStarted:
			err = started(s, payload)
		case FrameTime:
			if s.When != nil && len(payload) == 8 {
				s.When(time.Unix(0, int64(binary.BigEndian.Uint64(payload))))
			}
		case FrameDropped:
			if s.Dropped != nil && len(payload) == 8 {
				s.Dropped(binary.BigEndian.Uint64(payload))
			}
		case FrameKept:
			return ExecExit{}, nil
		case FrameExit:
			var exit ExecExit
			if err := json.Unmarshal(payload, &exit); err != nil {
				return ExecExit{}, vm.Errorf(vm.CodeInternal, "decode the command's exit: %w", plainError{err})
			}
			exit.Signal, exit.Reason = Plain(exit.Signal), Plain(exit.Reason)
			return exit, nil
		}
		if err != nil {
			return ExecExit{}, err
		}
	}
}

func started(s Stdio, payload []byte) error {
	var j JobStarted
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &j); err != nil {
			return vm.Errorf(vm.CodeInternal, "decode the command's start: %w", plainError{err})
		}
	}
	// It is shown to people, to be given to their shells: never what a guest makes up.
	if strings.Trim(j.Job, "0123456789abcdef") != "" {
		return vm.Errorf(vm.CodeInternal, "decode the command's start: %q is no job's id", Plain(j.Job))
	}
	if s.Started != nil {
		s.Started(j)
	}
	if s.Times && !j.Times {
		return ErrNoTimes
	}
	if s.Tail && !j.Tail {
		return ErrNoTail
	}
	return nil
}

func deliver(w io.Writer, p []byte, what string) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("write the command's %s: %w", what, err)
	}
	return nil
}

// sendInput sends what in holds, and its end. An error of in counts as its end. An error of out means that the
// connection is done with, which receive notices.
func sendInput(out *FrameWriter, in io.Reader) {
	buf := make([]byte, stdinChunk)
	for {
		n, err := in.Read(buf)
		if n > 0 && out.Write(FrameStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = out.Write(FrameStdinClose, nil)
			return
		}
	}
}

func sendEvents(out *FrameWriter, s Stdio, ended <-chan struct{}, detach func()) {
	for {
		var err error
		select {
		case <-ended:
			return
		case <-s.Detach:
			detach()
			return
		case size, ok := <-s.Resize:
			if !ok {
				s.Resize = nil
				continue
			}
			b := binary.BigEndian.AppendUint16(nil, size.Rows)
			err = out.Write(FrameResize, binary.BigEndian.AppendUint16(b, size.Cols))
		case name, ok := <-s.Signals:
			if !ok {
				s.Signals = nil
				continue
			}
			err = out.Write(FrameSignal, []byte(name))
		}
		if err != nil {
			return
		}
	}
}
