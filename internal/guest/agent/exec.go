package agent

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

const (
	// outputGrace is how long after the end of a command its pipes are read on, while something else holds them open.
	outputGrace = 250 * time.Millisecond
	// stdinBuffer keeps signals and resizes, which come on the same stream, from waiting behind input that the command
	// does not read yet. The kernel holds it, and only what is used of it.
	stdinBuffer = 1 << 20
)

// process is one started command, in a session and process group of its own.
type process struct {
	// Stdin takes the command's input; Close ends it. With a TTY it is the pty (Close does nothing then); nil when
	// neither Stdin nor TTY was asked for. A write blocks while the command does not read (1 MiB is buffered).
	Stdin io.WriteCloser
	// Pty is the master side, nil without TTY.
	Pty *os.File

	s      *Server
	pid    int
	exited <-chan syscall.WaitStatus
	group  *cgroup // nil without cgroups
	outs   []output
	input  *os.File // the pipe behind Stdin
	unread atomic.Bool

	mu       sync.Mutex
	ending   bool // it was hung up or terminated
	released bool
	killer   *time.Timer // runs between the signal and SIGKILL
}

// start runs the command. Its output waits in the pipes (or pty) until Wait copies it to stdout and stderr; with a TTY
// all of it goes to stdout. The error is always a *startError.
func (s *Server) start(req guest.ExecRequest, stdout, stderr io.Writer) (*process, error) {
	c, err := s.prepare(req)
	if err != nil {
		return nil, err
	}
	return s.launch(c, req, stdout, stderr)
}

// launch is start for a command that has been prepared.
func (s *Server) launch(c command, req guest.ExecRequest, stdout, stderr io.Writer) (*process, error) {
	p := &process{s: s}
	files, err := p.open(req, stdout, stderr)
	if err == nil {
		err = files.giveTo(c.who, req.TTY)
	}
	if err != nil {
		files.close()
		p.release()
		return nil, cannot(codeCannot, "%v", err)
	}
	defer files.close()
	attr := &syscall.ProcAttr{
		Dir: c.dir, Env: c.env, Files: files.fds[:],
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: req.TTY, Credential: c.who.credential()},
	}
	if p.group, err = s.cgroups.take(); err != nil {
		say("%v", err) // its limits are a protection, not a condition
	}
	if p.group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(p.group.dir.Fd())
	}
	p.pid, p.exited, err = s.reaper.start(func() (int, error) { return syscall.ForkExec(c.path, c.argv, attr) })
	if err != nil {
		p.release()
		return nil, forkFailed(c, err)
	}
	if s.protected {
		_ = os.WriteFile("/proc/"+strconv.Itoa(p.pid)+"/oom_score_adj", []byte("0"), 0)
	}
	return p, nil
}

// childFiles are the command's ends of its streams.
type childFiles struct {
	fds  [3]uintptr
	ours []int // to be closed here after the fork
}

func (f *childFiles) close() {
	for _, fd := range f.ours {
		_ = unix.Close(fd)
	}
}

// ttyGroup is the group of terminals on every Linux distribution; devpts gives it to those of root.
const ttyGroup = 5

// giveTo makes the streams the user's own: programs open them anew by /dev/stdout, /dev/stderr and the terminal's name.
// The null device is everybody's.
func (f *childFiles) giveTo(who account, tty bool) error {
	if who.uid == 0 {
		return nil
	}
	gid := who.gid
	if tty {
		gid = ttyGroup
	}
	for _, fd := range f.ours {
		err := unix.Fchown(fd, int(who.uid), int(gid))
		if err == nil && tty {
			err = unix.Fchmod(fd, 0o620)
		}
		if err != nil {
			return fmt.Errorf("give a stream to user %s: %w", who.name, err)
		}
	}
	return nil
}

// open makes the command's streams. They are to be closed on error as well; ours go with release.
func (p *process) open(req guest.ExecRequest, stdout, stderr io.Writer) (f childFiles, err error) {
	if req.TTY {
		master, slave, err := openPty(req.Rows, req.Cols)
		if err != nil {
			return f, err
		}
		f.ours = []int{slave}
		f.fds = [3]uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
		p.Pty = os.NewFile(uintptr(master), "pty")
		p.Stdin = ptyInput{p.Pty}
		p.outs = []output{{p.Pty, master, stdout}}
		return f, nil
	}
	f.fds[0] = uintptr(p.s.null)
	if req.Stdin {
		r, w, err := pipe()
		if err != nil {
			return f, err
		}
		f.ours = append(f.ours, r)
		f.fds[0] = uintptr(r)
		_, _ = unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, stdinBuffer)
		p.input = pollable(w, "stdin")
		p.Stdin = p.input
	}
	for i, to := range []io.Writer{stdout, stderr} {
		r, w, err := pipe()
		if err != nil {
			return f, err
		}
		f.ours = append(f.ours, w)
		f.fds[i+1] = uintptr(w)
		p.outs = append(p.outs, output{pollable(r, "output"), r, to})
	}
	return f, nil
}

func pipe() (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, fmt.Errorf("make a pipe: %w", err)
	}
	return fds[0], fds[1], nil
}

// pollable makes our end of a pipe wait in the runtime's poller. The command's end stays as programs expect it.
func pollable(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// ptyInput is a terminal as a command's input: nobody closes a terminal by ending their typing.
type ptyInput struct{ io.Writer }

func (ptyInput) Close() error { return nil }

// Wait copies output until the command has ended and its output is complete (a background child that keeps a pipe open
// is given a short grace), and returns the exit; what the process held is let go. Call it exactly once.
func (p *process) Wait() guest.ExecExit {
	complete := make(chan struct{})
	var left atomic.Int32
	left.Store(int32(len(p.outs)))
	for i, o := range p.outs {
		go func() {
			if err := o.copy(); i == 0 && p.unread.Load() {
				_ = o.from.Close() // here: copy must not read what else has its number by then
			} else if err != nil {
				p.Hangup() // nobody reads any more
			}
			if left.Add(-1) == 0 {
				close(complete)
			}
		}()
	}
	status := <-p.exited
	if p.input != nil {
		_ = p.input.Close() // a write that waits for the command would wait for ever
	}
	select {
	case <-complete:
	default:
		deadline := time.Now().Add(outputGrace)
		for _, o := range p.outs {
			_ = o.from.SetReadDeadline(deadline)
		}
		<-complete
	}
	go p.release() // the exit is what somebody waits for
	if status.Signaled() {
		return guest.ExecExit{Code: 128 + int(status.Signal()), Signal: unix.SignalName(status.Signal())}
	}
	return guest.ExecExit{Code: status.ExitStatus()}
}

// Unread is told when nobody reads the command's output any more: it gets SIGPIPE when it goes on writing. A terminal
// has nothing like that.
func (p *process) Unread() {
	if p.Pty == nil {
		p.unread.Store(true)
		_ = p.outs[0].from.SetReadDeadline(time.Now())
	}
}

// release closes our ends and gives the cgroup back.
func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = true // the cgroup may soon be another's
	if p.killer != nil {
		p.killer.Stop()
	}
	if p.input != nil {
		_ = p.input.Close()
	}
	for _, o := range p.outs {
		_ = o.from.Close()
	}
	p.s.cgroups.put(p.group)
}
