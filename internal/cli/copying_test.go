package cli

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// Who breaks a copy off says why; that the pipe to it was closed then is no news.
func TestABrokenCopyNamesTheCause(t *testing.T) {
	answer, local := errors.New("the guest hung up"), errors.New("read here: input/output error")
	for _, c := range []struct{ sent, written, want error }{
		{nil, nil, nil},
		{answer, nil, answer},
		{answer, errStopped, answer},
		{answer, fmt.Errorf("write: %w", io.ErrClosedPipe), answer},
		{nil, errStopped, nil},
		{nil, io.ErrClosedPipe, io.ErrClosedPipe}, // not all of it went out, and nobody says that this was right
		{answer, local, local},
		{nil, local, local},
	} {
		if got := broken(c.sent, c.written); !errors.Is(got, c.want) {
			t.Errorf("sent: %v, written: %v: got %v, want %v", c.sent, c.written, got, c.want)
		}
	}
}
