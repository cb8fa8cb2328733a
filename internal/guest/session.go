package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// maxChunk bounds the body of a yamux frame to the guest. A guest that did not notice that its host was replaced
	// may be waiting for the rest of one: a new host has to send more than that before it is heard. See guard.
	maxChunk = 32 << 10

	// Bytes in flight to a reader that is slow; also what such a stream may cost in memory. A guest has less of that.
	hostWindow  = 1 << 20
	guestWindow = 512 << 10

	// abandonAfter is how long a stream closed by the host may still bring data before the guest is told to stop.
	abandonAfter = time.Second
)

// sessionConfig makes yamux never give up by the clock: a guest may be paused for days and then go on. A dead one is
// told by the end of its port, and requests are bounded by their contexts. Keep-alives would wake idle guests.
func sessionConfig(closeTimeout time.Duration, window uint32) *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = closeTimeout
	c.ConnectionWriteTimeout = math.MaxInt64
	c.MaxStreamWindowSize = window
	c.LogOutput = io.Discard // its lines say what the returned errors say
	return c
}

// guard follows the frames that come over a port, and refuses what no peer of ours sends.
//
// The guest's guard is about hosts that were replaced: to yamux itself the rest of a torn header and the start of a
// new host's hello can be a frame of gigabytes that it would wait for. The host's is about a hostile guest: yamux
// answers each ping in a goroutine of its own, and keeps streams that nobody accepts.
type guard struct {
	maxBody uint32
	refuse  func(header []byte) error // says what is wrong with a frame besides its version and its body; nil = nothing

	header [yamuxHeader]byte
	have   int // bytes of header
	body   int // bytes of body still to come
}

var errNoFrame = errors.New("what is sent is no yamux frame")

func guestGuard() guard { return guard{maxBody: maxChunk} }

func hostGuard() guard {
	return guard{maxBody: hostWindow, refuse: func(header []byte) error {
		flags := binary.BigEndian.Uint16(header[2:])
		switch {
		case header[1] != yamuxTypeData && header[1] != yamuxTypeWindow: // keep-alives are off, and sessions end with their port
			return fmt.Errorf("a frame of type %d, which no agent sends", header[1])
		case flags&yamuxFlagSYN != 0:
			return errors.New("a stream opened by the guest, which no agent does")
		case flags&^(yamuxFlagACK|yamuxFlagFIN|yamuxFlagRST) != 0:
			return fmt.Errorf("a frame with flags %#x, which no agent sends", flags)
		}
		return nil
	}}
}

// check looks at the next bytes. It returns how many of them are before what it refuses; the first bytes of a header
// count as good until its fate is known. After an error the guard is of no more use.
func (g *guard) check(p []byte) (good int, err error) {
	all := len(p)
	for len(p) > 0 {
		if g.body > 0 {
			n := min(g.body, len(p))
			g.body -= n
			p = p[n:]
			continue
		}
		n := copy(g.header[g.have:], p)
		if g.have == 0 {
			good = all - len(p)
		}
		g.have += n
		p = p[n:]
		if g.header[0] != yamuxVersion {
			return good, errNoFrame
		}
		if g.have < yamuxHeader {
			return all, nil
		}
		g.have = 0
		if g.refuse != nil {
			if err := g.refuse(g.header[:]); err != nil {
				return good, err
			}
		}
		if g.header[1] == yamuxTypeData {
			length := binary.BigEndian.Uint32(g.header[8:])
			if length > g.maxBody {
				return good, fmt.Errorf("%w: one of %d bytes, and %d is the most", errNoFrame, length, g.maxBody)
			}
			g.body = int(length)
		}
	}
	return all, nil
}

// joiner sends a yamux header and a small body in one Write. yamux writes them apart, and each write to a virtio port
// stops the virtual processor once.
type joiner struct {
	w   io.Writer
	buf []byte
}

const (
	yamuxHeader   = 12 // version, type, two bytes of flags, four of stream, four of length
	yamuxVersion  = 0
	yamuxTypeData = 0

	yamuxTypeWindow = 1

	yamuxFlagSYN = 1 << 0
	yamuxFlagACK = 1 << 1
	yamuxFlagFIN = 1 << 2
	yamuxFlagRST = 1 << 3
)

// Write passes p on, but for the header of a data frame: that waits for its body. For one goroutine.
func (j *joiner) Write(p []byte) (int, error) {
	if len(j.buf) == 0 {
		if len(p) == yamuxHeader && p[1] == yamuxTypeData && binary.BigEndian.Uint32(p[8:]) > 0 {
			j.buf = append(j.buf, p...)
			return len(p), nil
		}
		return j.w.Write(p)
	}
	header := len(j.buf)
	if len(p) <= maxChunk { // a copy of more would cost more than the second write
		j.buf = append(j.buf, p...)
	}
	_, err := j.w.Write(j.buf)
	if err == nil && len(j.buf) == header {
		_, err = j.w.Write(p)
	}
	j.buf = j.buf[:0]
	if err != nil {
		return 0, err
	}
	return len(p), nil
}
