package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Frames of a forwarded connection, alike in both directions (frame.go has their form). A direction that ends without
// FrameEnd was broken off: whoever is at its end learns of a reset, and never takes a part for the whole. The channels below
// cannot say that one direction has ended while the other goes on, so frames do.
const (
	FrameData FrameType = 32 // bytes; of UDP, one datagram
	FrameEnd  FrameType = 33 // empty: no more comes in this direction
)

// buffers hold one frame each, which is one chunk of the channel. A connection has one only while there is something to carry.
var buffers = sync.Pool{New: func() any { return new([maxChunk]byte) }}

// Forward carries a TCP connection over a stream of frames until both directions have ended, and closes both. The error says
// why it was broken off; conn is reset then.
func Forward(stream net.Conn, conn *net.TCPConn) error {
	var both sync.WaitGroup
	var once sync.Once
	var broken error
	breakOff := func(err error) {
		once.Do(func() {
			broken = err
			_ = conn.SetLinger(0) // a reset, and not the end of what came
			_ = conn.Close()
			_ = stream.SetDeadline(time.Unix(1, 0)) // who waits for a peer that takes nothing waits no longer
			_ = stream.Close()
		})
	}
	for _, direction := range []func(net.Conn, *net.TCPConn) error{toStream, fromStream} {
		both.Go(func() {
			if err := direction(stream, conn); err != nil {
				breakOff(err)
			}
		})
	}
	both.Wait()
	once.Do(func() {
		_ = conn.Close()
		_ = stream.Close()
	})
	return broken
}

// toStream carries what comes from conn.
func toStream(stream net.Conn, conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		if err := awaitInput(raw); err != nil {
			return fmt.Errorf("read from the connection: %w", err)
		}
		buf := buffers.Get().(*[maxChunk]byte)
		n, err := conn.Read(buf[frameHeader:])
		if n > 0 {
			putHeader(buf[:], FrameData, n)
			if _, werr := stream.Write(buf[:frameHeader+n]); werr != nil {
				buffers.Put(buf)
				return fmt.Errorf("write to the channel: %w", werr)
			}
		}
		buffers.Put(buf)
		if errors.Is(err, io.EOF) {
			return writeFrame(stream, FrameEnd, nil)
		}
		if err != nil {
			return fmt.Errorf("read from the connection: %w", err)
		}
	}
}

// awaitInput waits until there is something to read, or an end. An error is told once by the kernel: it is returned.
func awaitInput(raw syscall.RawConn) (err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		var one [1]byte
		for {
			_, _, err = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

// fromStream carries what comes over the stream. Who reads slowly is waited for: the channel takes no more meanwhile.
func fromStream(stream net.Conn, conn *net.TCPConn) error {
	for {
		t, n, err := readHeader(stream)
		if err != nil {
			return fmt.Errorf("read from the channel: %w", err)
		}
		switch t {
		case FrameEnd:
			if err := conn.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
				return err
			}
			return nil
		case FrameData:
			if err := copyBody(conn, stream, n); err != nil {
				return err
			}
		default:
			return fmt.Errorf("a frame of type %d, which no forwarded connection has", t)
		}
	}
}

func copyBody(conn io.Writer, stream io.Reader, n int) error {
	buf := buffers.Get().(*[maxChunk]byte)
	defer buffers.Put(buf)
	for n > 0 {
		m, err := stream.Read(buf[:min(n, len(buf))])
		if _, werr := conn.Write(buf[:m]); werr != nil {
			return fmt.Errorf("write to the connection: %w", werr)
		}
		if n -= m; err != nil && n > 0 {
			return fmt.Errorf("read from the channel: %w", err)
		}
	}
	return nil
}

// WriteDatagram sends one datagram over a stream; calls must not overlap.
func WriteDatagram(stream io.Writer, p []byte) error { return writeFrame(stream, FrameData, p) }

// ReadDatagram reads one into p, which has room for any (MaxFrame).
func ReadDatagram(stream io.Reader, p []byte) (int, error) {
	t, n, err := readHeader(stream)
	if err != nil {
		return 0, err
	}
	if t != FrameData || n > len(p) {
		return 0, fmt.Errorf("a frame of type %d with %d bytes, which is no datagram", t, n)
	}
	_, err = io.ReadFull(stream, p[:n])
	return n, err
}

func writeFrame(w io.Writer, t FrameType, p []byte) error {
	b := make([]byte, frameHeader, frameHeader+len(p))
	putHeader(b, t, len(p))
	_, err := w.Write(append(b, p...))
	return err
}

func putHeader(b []byte, t FrameType, n int) {
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:], uint32(n))
}

func readHeader(r io.Reader) (FrameType, int, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, 0, fmt.Errorf("frame of type %d claims %d bytes, more than %d", h[0], n, MaxFrame)
	}
	return FrameType(h[0]), int(n), nil
}
