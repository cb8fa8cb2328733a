package guest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// tcpPair is a TCP connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(a.Close(), b.Close()) })
	_ = a.SetDeadline(time.Now().Add(time.Minute))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// TestForwardOfAHostileGuest has the other end of the channel send what no agent does: the client is told of a reset, after
// what came in order, and nobody hangs.
func TestForwardOfAHostileGuest(t *testing.T) {
	for name, sent := range map[string]struct{ bytes, heard string }{
		"nothing":             {"", ""},
		"half a header":       {"\x20\x00", ""},
		"half a frame":        {"\x20\x00\x00\x00\x05he", "he"},
		"another's frame":     {"\x20\x00\x00\x00\x02hi\x10\x00\x00\x00\x00", "hi"},
		"a frame of 4 GiB":    {"\x20\xff\xff\xff\xff", ""},
		"one that is too big": {"\x20\x00\x01\x00\x01", ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, conn := tcpPair(t)
			stream, guest := net.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- Forward(stream, conn) }()
			_, _ = guest.Write([]byte(sent.bytes))
			heard := make([]byte, len(sent.heard))
			if _, err := io.ReadFull(client, heard); err != nil || string(heard) != sent.heard {
				t.Errorf("%q, %v, want %q", heard, err, sent.heard)
			}
			_ = guest.Close()
			if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v, want a reset", err)
			}
			if err := <-ended; err == nil {
				t.Error("it counts as an end")
			}
		})
	}
}

func FuzzReadDatagram(f *testing.F) {
	var b bytes.Buffer
	_ = WriteDatagram(&b, []byte("hello"))
	f.Add(b.Bytes())
	f.Add([]byte("\x20\x00\x00\x00\x00\x21\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		p := make([]byte, 100)
		for in := bytes.NewReader(sent); ; {
			n, err := ReadDatagram(in, p)
			if n < 0 || n > len(p) {
				t.Fatalf("%d bytes in a buffer of %d", n, len(p))
			}
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := WriteDatagram(&again, p[:n]); err != nil || !bytes.Contains(sent, again.Bytes()) {
				t.Fatalf("%q is written as %q", p[:n], again.Bytes())
			}
		}
	})
}
