package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"banger/internal/guest"
	"banger/internal/vm"
)

// defaultStuckInput is how long input waits for a command that does not read before we look whether the client is still there:
// its going away would be seen only behind that input.
const defaultStuckInput = 2 * time.Second

// handleExec runs one command over an upgraded stream: 101, then frames both ways until FrameExit.
func (s *Server) handleExec(w http.ResponseWriter, r *http.Request) {
	var req guest.ExecRequest
	if !readJSON(w, r, &req) {
		return
	}
	if len(req.Argv) == 0 {
		writeError(w, http.StatusBadRequest, vm.Errorf(vm.CodeInvalid, "exec without a command"))
		return
	}
	conn, err := hijack(w, r, guest.UpgradeExec)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	defer func() { _ = conn.Close() }()
	frames := guest.NewFrameWriter(conn)
	p, err := s.start(req, frames.StreamWriter(guest.FrameStdout), frames.StreamWriter(guest.FrameStderr))
	if err != nil {
		var e *startError
		errors.As(err, &e)
		_ = writeExit(frames, e.exit)
		return
	}
	if err := frames.Write(guest.FrameStarted, nil); err != nil {
		p.Hangup()
	}
	go p.serveInput(guest.NewFrameReader(conn), frames)
	_ = writeExit(frames, p.Wait()) // when it fails the client is gone: nobody to tell
}

func writeExit(frames *guest.FrameWriter, exit guest.ExecExit) error {
	b, err := json.Marshal(exit)
	if err != nil {
		return err
	}
	return frames.Write(guest.FrameExit, b)
}

// serveInput obeys the client's frames until the stream ends. An end before the command's is a hang-up.
func (p *process) serveInput(in *guest.FrameReader, out *guest.FrameWriter) {
	defer p.Hangup() // does nothing when the command has ended
	for {
		kind, b, err := in.Next()
		if err != nil {
			return
		}
		switch kind {
		case guest.FrameStdin:
			if err := p.feed(b, out); err != nil {
				return
			}
		case guest.FrameStdinClose:
			if p.Stdin != nil {
				_ = p.Stdin.Close()
			}
		case guest.FrameResize:
			if len(b) == 4 {
				_ = p.Resize(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
			}
		case guest.FrameSignal:
			_ = p.Signal(string(b))
		}
	}
}

// feed writes input to the command. Its error is that of the client: a command that does not want input (any more) is
// its own business.
func (p *process) feed(b []byte, client *guest.FrameWriter) error {
	to := p.input
	if to == nil {
		to = p.Pty
	}
	for to != nil && len(b) > 0 {
		_ = to.SetWriteDeadline(time.Now().Add(p.s.stuckInput))
		n, err := to.Write(b)
		b = b[n:]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := client.Write(guest.FrameStdout, nil); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return nil
		}
	}
	return nil
}
