package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// frame makes a yamux frame; body only for data.
func frame(kind byte, flags uint16, stream, length uint32, body ...byte) []byte {
	b := []byte{yamuxVersion, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, body...)
}

const (
	typePing   = 2
	typeGoAway = 3
)

// hostileGuest does the guest's part of the handshake and hands over what the rest of the port is: the test's guest.
func hostileGuest(t *testing.T) (*Mux, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
	met := make(chan error, 1)
	go func() { met <- meet(onlyHost{theirs}, &scanner{r: theirs}) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := NewMux(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	if err := <-met; err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return m, theirs
}

// onlyHost is a port whose host is always there.
type onlyHost struct{ net.Conn }

func (o onlyHost) ReadHost(p []byte) (int, error) { return o.Read(p) }
func (onlyHost) Offer([]byte)                     {}

// TestHostileGuest: a guest must not cost the daemon memory or goroutines. What no agent of ours sends ends the session
// at once, and the error says what it was.
func TestHostileGuest(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		says  string
	}{
		"ping":                 {frame(typePing, yamuxFlagSYN, 0, 1), "type 2"},
		"answer to no ping":    {frame(typePing, yamuxFlagACK, 0, 1), "type 2"},
		"go away":              {frame(typeGoAway, 0, 0, 0), "type 3"},
		"no such type":         {frame(9, 0, 0, 0), "type 9"},
		"another version":      {append([]byte{7}, frame(0, 0, 0, 0)[1:]...), "no yamux frame"},
		"stream by update":     {frame(yamuxTypeWindow, yamuxFlagSYN, 2, 0), "stream opened"},
		"stream by data":       {frame(yamuxTypeData, yamuxFlagSYN, 2, 1, 'x'), "stream opened"},
		"stream and no stream": {frame(yamuxTypeWindow, yamuxFlagSYN|yamuxFlagRST, 2, 0), "stream opened"},
		"flags":                {frame(yamuxTypeWindow, 1<<9, 1, 0), "flags 0x200"},
		"more than the window": {frame(yamuxTypeData, 0, 1, hostWindow+1), "1048577 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m, guest := hostileGuest(t)
			before := runtime.NumGoroutine()
			flood := bytes.Repeat(c.frame, 1000)
			sent, most := 0, before
			for range 200 {
				n, err := guest.Write(flood)
				sent, most = sent+n, max(most, runtime.NumGoroutine())
				if err != nil {
					break
				}
			}
			select {
			case <-m.Done():
			case <-time.After(5 * time.Second):
				t.Errorf("the session goes on after %d bytes", sent)
			}
			if sent > 100_000 || most > before+20 {
				t.Errorf("took %d bytes, with %d goroutines and %d before", sent, most, before)
			}
			if _, err := m.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("dial: %v, want %q", err, c.says)
			}
		})
	}
}

// TestGoodBeforeBad: what came before the frame that is refused reaches its stream.
func TestGoodBeforeBad(t *testing.T) {
	m, guest := hostileGuest(t)
	c := open(t, m, "")
	if _, err := guest.Write(append(frame(yamuxTypeData, yamuxFlagACK, 1, 4, []byte("last")...), frame(typePing, yamuxFlagSYN, 0, 0)...)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "last" {
		t.Errorf("%q, %v", b, err)
	}
	<-m.Done()
}

// judged is what guard is to find, taken from the whole at once.
func judged(in []byte, maxBody uint32, host bool) (good int, ok bool) {
	for at := 0; at < len(in); {
		rest := in[at:]
		if rest[0] != yamuxVersion {
			return at, false
		}
		if len(rest) < yamuxHeader {
			return len(in), true
		}
		kind, flags := rest[1], binary.BigEndian.Uint16(rest[2:])
		if host && (kind > yamuxTypeWindow || flags&^(yamuxFlagACK|yamuxFlagFIN|yamuxFlagRST) != 0) {
			return at, false
		}
		at += yamuxHeader
		if kind == yamuxTypeData {
			length := binary.BigEndian.Uint32(rest[8:])
			if length > maxBody {
				return at - yamuxHeader, false
			}
			at += int(length)
		}
	}
	return len(in), true
}

// FuzzGuard: both guards find the same in any pieces as in the whole, and never refuse later than they could.
func FuzzGuard(f *testing.F) {
	f.Add(slices.Concat(frame(yamuxTypeData, yamuxFlagACK, 1, 3, 1, 2, 3), frame(yamuxTypeWindow, yamuxFlagFIN, 1, 1<<31)), uint8(5), true)
	f.Add(slices.Concat(frame(yamuxTypeData, 0, 1, 1, 9), frame(typePing, yamuxFlagSYN, 0, 0)), uint8(13), true)
	f.Add(frame(yamuxTypeData, 0, 1, maxChunk+1), uint8(1), false)
	f.Add(frame(typeGoAway, 0, 0, 0), uint8(200), false)
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8, host bool) {
		g := guestGuard()
		if host {
			g = hostGuard()
		}
		want, ok := judged(in, g.maxBody, host)
		at := 0
		var refused error
		for piece := range slices.Chunk(in, int(chunk)+1) {
			good, err := g.check(piece)
			if good > len(piece) || err == nil && good != len(piece) {
				t.Fatalf("%d of %d bytes are good, %v", good, len(piece), err)
			}
			if refused = err; err != nil {
				break
			}
			at += len(piece)
		}
		if (refused == nil) != ok {
			t.Fatalf("refused with %v, want %v", refused, !ok)
		}
		if refused != nil && (want < at-yamuxHeader || want > at+int(chunk)+1) {
			t.Errorf("refused after %d bytes, those to byte %d are good", at, want)
		}
	})
}

// FuzzJoiner: written as yamux does, all bytes come out in order, none is held back after a body, and a small body goes
// out with its header.
func FuzzJoiner(f *testing.F) {
	f.Add([]byte{0, 3, 1, 0, 0, 200}, 0)
	f.Add([]byte{0, 0, 2, 9}, maxChunk)
	f.Add([]byte{0, 12, 0, 12, 3, 3}, maxChunk+1)
	f.Fuzz(func(t *testing.T, script []byte, large int) {
		var out countingWriter
		j := joiner{w: &out}
		var want bytes.Buffer
		put := func(p []byte) {
			want.Write(p)
			if n, err := j.Write(p); n != len(p) || err != nil {
				t.Fatalf("%d of %d, %v", n, len(p), err)
			}
		}
		for pair := range slices.Chunk(script, 2) {
			kind, size := pair[0], uint32(0)
			if len(pair) == 2 {
				size = uint32(pair[1])
			}
			if size == 200 {
				size = uint32(max(0, min(large, 2*maxChunk)))
			}
			before := out.writes
			put(frame(kind, 0, 1, size))
			if kind == yamuxTypeData && size > 0 {
				put(bytes.Repeat([]byte{byte(size)}, int(size)))
				if size <= maxChunk && out.writes != before+1 {
					t.Errorf("a body of %d bytes took %d writes", size, out.writes-before)
				}
			}
			if !bytes.Equal(out.Bytes(), want.Bytes()) {
				t.Fatalf("after %d bytes %d came out", want.Len(), out.Len())
			}
		}
	})
}

type countingWriter struct {
	bytes.Buffer
	writes int
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}
