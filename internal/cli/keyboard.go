package cli

import (
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// keyboard is the terminal of a session that passes nothing of it on: it is read for the keys that leave, and for nothing
// else. Ctrl-C and Ctrl-Z go on being signals of the terminal's.
type keyboard struct {
	fd     int
	before unix.Termios
	left   chan struct{} // closed when the keys were typed

	mu   sync.Mutex
	over bool
}

// watchKeys begins to read the keyboard. It returns nil where there is none, and where it is another program's as well, as
// that of a pager that gets our output.
func (a *app) watchKeys() *keyboard {
	k := &keyboard{fd: int(a.in.Fd())}
	if !term.IsTerminal(k.fd) || !term.IsTerminal(int(a.out.Fd())) {
		return nil
	}
	before, err := unix.IoctlGetTermios(k.fd, unix.TCGETS)
	if err != nil || before.Lflag&unix.ICANON == 0 || before.Lflag&unix.ECHO == 0 {
		return nil // whoever made it so reads it: another of us beside this one, say, who also gives it back
	}
	k.before = *before
	keys := newDetachKeys(a.in)
	k.left = keys.left
	signal.Ignore(unix.SIGTTIN) // in the background a read fails then, instead of stopping us, and the command is followed on
	k.take()
	go func() { // left behind with its Read, as that of any session's input
		_, _ = io.Copy(io.Discard, keys)
		k.restore() // nobody reads any more
	}()
	// In a group that is the session's first there is no shell to have us go on, and Ctrl-Z does nothing.
	if sid, err := unix.Getsid(0); err == nil && sid != unix.Getpgrp() && !signal.Ignored(unix.SIGTSTP) {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, unix.SIGTSTP)
		go func() {
			for range stop {
				k.suspend()
			}
		}()
	}
	return k
}

// ours says that the terminal is that of this program's process group.
func (k *keyboard) ours() bool {
	group, err := unix.IoctlGetInt(k.fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// take has keys come one by one, unseen, and ctrl-q among them: to a terminal it means that output goes on.
func (k *keyboard) take() {
	one := k.before
	one.Iflag &^= unix.IXON
	one.Lflag &^= unix.ICANON | unix.ECHO
	one.Cc[unix.VMIN], one.Cc[unix.VTIME] = 1, 0
	k.set(one)
}

func (k *keyboard) set(state unix.Termios) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over && k.ours() {
		_ = unix.IoctlSetTermios(k.fd, unix.TCSETS, &state)
	}
}

// suspend does what Ctrl-Z asks for, with the terminal as it was: not every shell brings it back.
func (k *keyboard) suspend() {
	k.set(k.before)
	runtime.LockOSThread() // a signal to the thread itself stops all of them within the call
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	k.take()
}

// restore gives the terminal back as it was. It may be called several times.
func (k *keyboard) restore() {
	k.set(k.before)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
}
