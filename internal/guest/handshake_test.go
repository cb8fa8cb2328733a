package guest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

func TestFind(t *testing.T) {
	hello := message{kindHello, nonce{1, 2, 3}}
	wire := hello.append(nil)
	spoilt := bytes.Clone(wire)
	spoilt[len(spoilt)-1]++
	tests := map[string]struct {
		in   []byte
		ok   bool
		used int
	}{
		"nothing":                {nil, false, 0},
		"alone":                  {wire, true, messageLen},
		"after other bytes":      {slices.Concat([]byte("xyz"), wire, []byte("rest")), true, 3 + messageLen},
		"torn":                   {wire[:messageLen-1], false, 0},
		"torn, then whole":       {slices.Concat(wire[:20], wire), true, 20 + messageLen},
		"bad checksum":           {spoilt, false, messageLen - len(magic) + 1},
		"bad checksum, then one": {slices.Concat(spoilt, wire), true, 2 * messageLen},
		"magic inside the magic": {slices.Concat([]byte(magic[:7]), wire), true, 7 + messageLen},
		"just the magic":         {[]byte("ab" + magic), false, 2},
	}
	for name, tt := range tests {
		m, used, ok := find(tt.in)
		if ok != tt.ok || used != tt.used {
			t.Errorf("%s: found %v, used %d; want %v, %d", name, ok, used, tt.ok, tt.used)
		}
		if ok && m != hello {
			t.Errorf("%s: found %v", name, m)
		}
	}
}

func TestScannerReadsByteByByte(t *testing.T) {
	var in []byte
	for i := range 5 {
		in = append(in, bytes.Repeat([]byte{magic[0], 0xff}, 3000*i)...)
		in = message{kindGo, nonce{byte(i)}}.append(in)
	}
	s := scanner{r: iotest.OneByteReader(bytes.NewReader(append(in, "rest"...)))}
	for i := range 5 {
		m, err := s.next()
		if err != nil || m != (message{kindGo, nonce{byte(i)}}) {
			t.Fatalf("message %d: %v, %v", i, m, err)
		}
	}
	if _, err := s.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last message: %v, want EOF", err)
	}
	if got := s.rest(); !bytes.HasSuffix([]byte("rest"), got) {
		t.Errorf("rest is %q", got)
	}
}

// FuzzScanner hides messages between any bytes, cut any way: the scanner finds all of them, in order, unless the bytes
// before one are the beginning of a message themselves.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("noise"), []byte(magic), uint8(3))
	f.Add(message{kindHello, nonce{9}}.append(nil)[:30], []byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, a, b []byte, chunk uint8) {
		one, two := message{kindHello, nonce{1}}, message{kindGo, nonce{2}}
		in := two.append(append(one.append(bytes.Clone(a)), b...))
		s := scanner{r: chunked{bytes.NewReader(in), int(chunk) + 1}}
		var found []message
		for {
			m, err := s.next()
			if err != nil {
				break
			}
			found = append(found, m)
		}
		i := slices.Index(found, one)
		if i < 0 || !slices.Contains(found[i:], two) {
			t.Errorf("found %v in %x", found, in)
		}
	})
}

type chunked struct {
	r io.Reader
	n int
}

func (c chunked) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }
