package guest

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// FrameType tells what a frame of an exec stream carries.
type FrameType byte

// Frames from client to agent.
const (
	FrameStdin      FrameType = 0 // bytes
	FrameStdinClose FrameType = 1 // empty: end of input
	FrameResize     FrameType = 2 // rows, cols: two big-endian uint16
	FrameSignal     FrameType = 3 // name as in "SIGINT", to the process group

	// How a client leaves. Without either it was cut off, and ExecRequest.LingerMs says what then.
	FrameBye    FrameType = 4 // empty: it has the exit, or hangs up, unless the job is one that clients leave
	FrameDetach FrameType = 5 // empty: the command is to go on without it
)

// Frames from agent to client. The last is FrameExit.
const (
	FrameStdout  FrameType = 16 // bytes
	FrameStderr  FrameType = 17 // bytes
	FrameExit    FrameType = 18 // JSON ExecExit
	FrameStarted FrameType = 19 // JSON JobStarted: the process exists; empty from an agent of version 1
	FrameDropped FrameType = 20 // big-endian uint64: so many bytes of output that would come here are not kept any more
	FrameKept    FrameType = 21 // empty: this is all that was kept. The last where AttachRequest.KeptOnly was asked for
	FrameTime    FrameType = 22 // big-endian int64: what follows came so many nanoseconds after 1970; only where AttachRequest.Times asked
)

// MaxFrame bounds a payload. A reader refuses more.
const MaxFrame = 64 << 10

const frameHeader = 5 // type, big-endian uint32 length

// FrameWriter writes frames to w, one Write call a frame; safe for several goroutines.
type FrameWriter struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewFrameWriter makes a FrameWriter on w.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Write sends p as one or more frames of type t. An empty p sends one empty frame.
func (f *FrameWriter) Write(t FrameType, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		n := min(len(p), MaxFrame)
		f.buf = append(f.buf[:0], byte(t), 0, 0, 0, 0)
		binary.BigEndian.PutUint32(f.buf[1:], uint32(n))
		f.buf = append(f.buf, p[:n]...)
		if _, err := f.w.Write(f.buf); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// FrameReader reads frames from r; for one goroutine.
type FrameReader struct {
	r   io.Reader
	buf []byte
}

// NewFrameReader makes a FrameReader on r.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next returns the next frame; payload is valid until the following call. io.EOF only between frames.
func (f *FrameReader) Next() (t FrameType, payload []byte, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of type %d claims %d bytes, more than %d", h[0], n, MaxFrame)
	}
	if cap(f.buf) < int(n) {
		f.buf = make([]byte, MaxFrame)
	}
	payload = f.buf[:n]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return FrameType(h[0]), payload, nil
}

// StreamWriter is an io.Writer that sends everything as frames of one type.
func (f *FrameWriter) StreamWriter(t FrameType) io.Writer { return frameStream{f, t} }

type frameStream struct {
	f *FrameWriter
	t FrameType
}

func (s frameStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.f.Write(s.t, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
