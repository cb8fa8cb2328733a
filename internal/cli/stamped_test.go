package cli

import (
	"strings"
	"testing"
	"time"
)

// A line has the time of its first byte, in whatever pieces it comes.
func TestStamped(t *testing.T) {
	var out strings.Builder
	when := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))
	s := &stamped{w: &out, when: &when}
	for _, piece := range []string{"one\ntw", "o", "\n", "\n", "", "three"} {
		if n, err := s.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("%q: %d, %v", piece, n, err)
		}
		when = when.Add(time.Second)
	}
	want := "2026-01-02T02:04:05.678Z one\n2026-01-02T02:04:05.678Z two\n2026-01-02T02:04:08.678Z \n2026-01-02T02:04:10.678Z three"
	if got := out.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
