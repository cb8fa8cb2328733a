package cli

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDetachKeys(t *testing.T) {
	for _, tt := range []struct {
		typed, given string
		leaves       bool
	}{
		{"ls\r", "ls\r", false},
		{"\x10a\x10\x10b\x11", "\x10a\x10\x10b\x11", false},
		{"ab\x10\x11cd", "ab", true},
		{"\x10\x10\x11", "\x10", true},
	} {
		for _, whole := range []bool{true, false} {
			var in io.Reader = strings.NewReader(tt.typed)
			if !whole {
				in = iotest.OneByteReader(in)
			}
			d := newDetachKeys(in)
			given := make(chan string, 1)
			ended := make(chan struct{})
			go func() {
				var got strings.Builder
				b := make([]byte, 3)
				for {
					n, err := d.Read(b)
					got.Write(b[:n])
					if err != nil || n == 0 {
						break
					}
					if tt.leaves && got.String() == tt.given {
						given <- got.String()
					}
				}
				if !tt.leaves {
					given <- got.String()
				}
				close(ended)
			}()
			if got := <-given; got != tt.given {
				t.Errorf("%q: %q was given", tt.typed, got)
			}
			if tt.leaves {
				<-d.left
				continue
			}
			<-ended
			if closed(d.left) {
				t.Errorf("%q: it left", tt.typed)
			}
		}
	}
}
