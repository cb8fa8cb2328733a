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
	conn, ok := hijackJSON(w, r, guest.UpgradeExec, &req)
	if !ok {
		return
	}
	if len(req.Argv) == 0 {
		conn.refuse(http.StatusBadRequest, vm.Errorf(vm.CodeInvalid, "exec without a command"))
		return
	}
	j, err := s.startJob(req)
	if err != nil {
		_ = writeJSONFrame(guest.NewFrameWriter(conn), guest.FrameExit, failed(err))
		_ = conn.Close()
		return
	}
	c := j.attach(conn, guest.AttachRequest{})
	go j.run()
	c.serve()
}

// handleAttach joins a client to a job.
func (s *Server) handleAttach(w http.ResponseWriter, r *http.Request) {
	var req guest.AttachRequest
	if !readJSON(w, r, &req) {
		return
	}
	j, err := s.jobs.find(req.Job)
	if err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	conn, err := hijack(w, r, guest.UpgradeExec)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	if req.Rows > 0 && req.Cols > 0 && !req.Watch && !req.KeptOnly {
		_ = j.process.Resize(req.Rows, req.Cols)
	}
	j.attach(conn, req).serve()
}

func writeJSONFrame(frames *guest.FrameWriter, kind guest.FrameType, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return frames.Write(kind, b)
}

// serve gives a client what the job writes, and takes what it sends, until both is over. An exit must have been taken: a
// client that may come back for it says so, with a bye.
func (c *client) serve() {
	heard := make(chan struct{})
	at := c.reader.at // nobody else reads there
	if writeJSONFrame(c.frames, guest.FrameStarted, guest.JobStarted{Job: c.job.id, At: &at, Times: true, Tail: true}) != nil {
		_ = c.conn.Close()
	}
	go func() {
		defer close(heard)
		c.leave(c.listen())
		_ = c.conn.Close() // send ends then
	}()
	if c.send() != nil || c.job.linger == 0 {
		_ = c.conn.Close() // listen ends then
	}
	<-heard
}

// send passes on what the job writes, to its end or the reader's.
func (c *client) send() error {
	var told time.Time
	for {
		out, dropped := c.reader.next()
		var err error
		switch {
		case dropped > 0:
			err = c.frames.Write(guest.FrameDropped, binary.BigEndian.AppendUint64(nil, uint64(dropped)))
		case len(out.data) > 0:
			if when := c.reader.when; !when.Equal(told) { // never where none are asked for
				told = when
				if err := c.frames.Write(guest.FrameTime, binary.BigEndian.AppendUint64(nil, uint64(told.UnixNano()))); err != nil {
					return err
				}
			}
			err = c.frames.Write(out.stream, out.data)
		default:
			return c.sendEnd()
		}
		if err != nil {
			return err
		}
	}
}

func (c *client) sendEnd() error {
	select {
	case <-c.job.done:
		c.told.Store(true) // before: its goodbye may be quick
		return writeJSONFrame(c.frames, guest.FrameExit, c.job.exit)
	default:
		return c.frames.Write(guest.FrameKept, nil) // or it has left, and gets nothing
	}
}

// listen obeys the client's frames until the stream ends, and returns how it did: by FrameBye, FrameDetach, or cut off. Once
// it said that it leaves, the rest does not matter.
func (c *client) listen() guest.FrameType {
	in := guest.NewFrameReader(c.conn)
	p := c.job.process
	deaf := c.watch
	for {
		kind, b, err := in.Next()
		if err != nil {
			return 0
		}
		if kind == guest.FrameBye || kind == guest.FrameDetach {
			return kind
		}
		if deaf {
			continue
		}
		switch kind {
		case guest.FrameStdin:
			if err := p.feed(b, c.frames); err != nil {
				deaf = true // it has gone; how, stands behind its input
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
