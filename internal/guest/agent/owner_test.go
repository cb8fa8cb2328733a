package agent

import (
	"os/user"
	"testing"

	"banger/internal/guest"
	"banger/internal/testhost"
)

// A program that opens its own streams by name (/dev/stdout, its terminal) may: they are its user's.
func TestStreamsBelongToTheUser(t *testing.T) {
	testhost.Need(t, testhost.Root)
	if _, err := user.Lookup("nobody"); err != nil {
		t.Skipf("needs a user who is not root: %v", err)
	}
	_, socket := serveAgent(t)
	t.Run("pipes", func(t *testing.T) {
		req := sh(`cat < /dev/stdin > /dev/stdout && echo err > /dev/stderr; stat -L -c %U /dev/stdin /dev/stdout /dev/stderr`)
		req.User, req.Dir, req.Stdin = "nobody", "/", true
		e := dialExec(t, socket, req)
		if err := e.out.Write(guest.FrameStdin, []byte("in\n")); err != nil {
			t.Fatal(err)
		}
		if err := e.out.Write(guest.FrameStdinClose, nil); err != nil {
			t.Fatal(err)
		}
		r := e.wait(t)
		if got := r.stdout.String(); got != "in\nnobody\nnobody\nnobody\n" || r.stderr.String() != "err\n" || r.exit.Code != 0 {
			t.Errorf("stdout %q, stderr %q, %+v", got, r.stderr.String(), r.exit)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		req := sh(`stty -onlcr; echo out > "$(tty)" && stat -c '%U %g %a' "$(tty)"`)
		req.User, req.TTY = "nobody", true
		if r := run(t, socket, req); r.stdout.String() != "out\nnobody 5 620\n" || r.exit.Code != 0 {
			t.Errorf("%q, %+v", r.stdout.String(), r.exit)
		}
	})
	t.Run("root's stay root's", func(t *testing.T) {
		if r := run(t, socket, sh(`stat -L -c %u /dev/stdout`)); r.stdout.String() != "0\n" {
			t.Errorf("%q", r.stdout.String())
		}
	})
}
