package guest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
)

// A virtio-serial port is a pipe without connections: either end may find bytes of an earlier peer in it, and the
// guest may not notice that the host's end was replaced. A session therefore begins with three messages that can be
// found in the middle of anything:
//
//	host  → hello N   repeated with a new N until answered
//	guest → answer N  for each hello it finds; everything else is thrown away
//	host  → go N      when it sees the answer to its latest hello; everything before is thrown away
//
// and yamux follows directly, the host being its client. A message is magic, kind, nonce and a checksum over them:
// copies of the magic in somebody's data are no messages, torn messages are none, and messages of an earlier host
// carry nonces that nobody waits for.
const (
	magic      = "\xa7\x1e\xd3\x5c\x90\x4b\xf8\x62\x0d\xe9\x37\xb1\xca\x86\x5f\x24"
	messageLen = len(magic) + 1 + len(nonce{}) + checksumLen

	checksumLen = 8
)

type nonce [16]byte

type messageKind byte

const (
	kindHello  messageKind = 1 // host: begin a session
	kindAnswer messageKind = 2 // guest: hello found
	kindGo     messageKind = 3 // host: yamux follows
	kindEnd    messageKind = 4 // guest: the session is over here. No yamux frame begins like a message, so the host's ends too
)

type message struct {
	kind  messageKind
	nonce nonce
}

func newNonce() (n nonce) {
	_, _ = rand.Read(n[:]) // never fails since Go 1.24
	return n
}

// append adds the wire form of m to b.
func (m message) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, byte(m.kind))
	b = append(b, m.nonce[:]...)
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:checksumLen]...)
}

// find looks for the first message in p. used is how much of p is done with, found or not: the rest may be the
// beginning of a message, and is shorter than one.
func find(p []byte) (m message, used int, ok bool) {
	for {
		i := bytes.Index(p[used:], []byte(magic))
		if i < 0 {
			return message{}, max(used, len(p)-len(magic)+1), false
		}
		used += i
		if len(p)-used < messageLen {
			return message{}, used, false
		}
		candidate := p[used : used+messageLen]
		m.kind = messageKind(candidate[len(magic)])
		copy(m.nonce[:], candidate[len(magic)+1:])
		var want [messageLen]byte
		if bytes.Equal(m.append(want[:0]), candidate) {
			return m, used + messageLen, true
		}
		used++
	}
}

// scanner finds messages in a stream, in a fixed amount of memory. Its errors are those of its reader; scanning may
// go on after one.
type scanner struct {
	r          io.Reader
	buf        [4096]byte
	start, end int
}

// next returns the next message, throwing away what is before it.
func (s *scanner) next() (message, error) {
	for {
		m, used, ok := find(s.buf[s.start:s.end])
		s.start += used
		if ok {
			return m, nil
		}
		s.end = copy(s.buf[:], s.buf[s.start:s.end])
		s.start = 0
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if n == 0 && err != nil {
			return message{}, err
		}
	}
}

// rest returns a copy of what was read beyond the last message.
func (s *scanner) rest() []byte { return bytes.Clone(s.buf[s.start:s.end]) }
