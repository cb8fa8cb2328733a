package cli

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// keyboard is the terminal of a session that passes nothing of it on: it is read for the keys that leave, and for nothing
// else. Ctrl-C and Ctrl-Z go on being signals of the terminal's.
type keyboard struct {
	fd   int
	left chan struct{} // closed when the keys were typed

	mu     sync.Mutex
	before *unix.Termios // nil until it was ours
	over   bool
}

// backLook is how often who is in the background looks whether it was brought back: no signal tells a command that ran there.
const backLook = 250 * time.Millisecond

// watchKeys begins to read the keyboard. It returns nil where there is none, and where it is another program's as well, as
// that of a pager that gets our output.
func (a *app) watchKeys() *keyboard {
	k := &keyboard{fd: int(a.in.Fd())}
	if !term.IsTerminal(k.fd) || !term.IsTerminal(int(a.out.Fd())) {
		return nil
	}
	keys := newDetachKeys(a.in)
	k.left = keys.left
	signal.Ignore(unix.SIGTTIN) // in the background a read fails then, instead of stopping us, and the command is followed on
	back := make(chan os.Signal, 1)
	signal.Notify(back, unix.SIGCONT)
	if k.ours() && !k.take() {
		return nil
	}
	go k.read(keys, back) // left behind with its Read, as that of any session's input
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

// read reads the keys whenever the terminal is ours, until it is nobody's any more, or was made somebody else's.
func (k *keyboard) read(keys io.Reader, back <-chan os.Signal) {
	go func() { // a shell that has us go on may have made the terminal its own meanwhile, while a Read waits
		for range back {
			k.take()
		}
	}()
	look := time.NewTicker(backLook)
	look.Stop()
	for {
		_, err := io.Copy(io.Discard, keys)
		if !errors.Is(err, unix.EIO) || k.hungUp() {
			break
		}
		look.Reset(backLook)
		for <-look.C; !k.ours() && !k.hungUp(); {
			<-look.C
		}
		look.Stop()
		if !k.take() {
			break
		}
	}
	k.restore() // nobody reads any more
}

func (k *keyboard) ours() bool { return foreground(k.fd) }

// foreground says that a terminal is that of this program's process group.
func foreground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// hungUp says that the terminal is nobody's any more.
func (k *keyboard) hungUp() bool {
	_, err := unix.IoctlGetInt(k.fd, unix.TIOCGPGRP)
	return err != nil
}

// take has keys come one by one, unseen, and ctrl-q among them: to a terminal it means that output goes on. It reports whether
// the terminal may be read: whoever else made it so reads it, another of us beside this one, say, who also gives it back.
func (k *keyboard) take() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over || !k.ours() {
		return !k.over
	}
	now, err := unix.IoctlGetTermios(k.fd, unix.TCGETS)
	switch {
	case err != nil:
		return false
	case now.Lflag&unix.ICANON != 0 && now.Lflag&unix.ECHO != 0:
		k.before = now
	case k.before == nil:
		return false
	}
	one := *k.before
	one.Iflag &^= unix.IXON
	one.Lflag &^= unix.ICANON | unix.ECHO
	one.Cc[unix.VMIN], one.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(k.fd, unix.TCSETS, &one) == nil
}

// give gives the terminal back as it was, for good if it is over.
func (k *keyboard) give(over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over && k.before != nil && k.ours() {
		_ = unix.IoctlSetTermios(k.fd, unix.TCSETS, k.before)
	}
	k.over = k.over || over
}

// suspend does what Ctrl-Z asks for, with the terminal as it was: not every shell brings it back.
func (k *keyboard) suspend() {
	k.give(false)
	runtime.LockOSThread() // a signal to the thread itself stops all of them within the call
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	k.take()
}

// restore gives the terminal back as it was. It may be called several times.
func (k *keyboard) restore() { k.give(true) }
