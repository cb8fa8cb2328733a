package agent

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// defaultPath is Debian's for root. An image's own (Configure.Env) goes before it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Codes of a command that did not start, as shells give them.
const (
	codeNotFound = 127
	codeCannot   = 126
)

// startError says why a command could not be started, in the form the caller reports.
type startError struct{ exit guest.ExecExit }

func (e *startError) Error() string { return e.exit.Reason }

func cannot(code int, format string, args ...any) *startError {
	// The names in it are the caller's, and may be megabytes.
	return &startError{guest.ExecExit{Code: code, Reason: guest.Plain(fmt.Sprintf(format, args...))}}
}

// command is an ExecRequest made ready for the kernel.
type command struct {
	path, dir string
	argv, env []string
	who       account
}

// prepare resolves user, environment, directory and program. The error is a *startError.
func (s *Server) prepare(req guest.ExecRequest) (command, error) {
	var imageEnv []string
	if conf := s.configured(); conf != nil {
		imageEnv = conf.Env
	}
	if len(req.Argv) == 0 || req.Argv[0] == "" {
		return command{}, cannot(codeCannot, "no command given")
	}
	who, err := s.account(req.User)
	if err != nil {
		return command{}, cannot(codeCannot, "%v", err)
	}
	c := command{argv: req.Argv, who: who}
	c.env = environment(who, req.TTY, imageEnv, req.Env)
	if c.dir, err = workingDir(req.Dir, who); err != nil {
		return command{}, err
	}
	c.path, err = lookPath(req.Argv[0], getenv(c.env, "PATH"), c.dir)
	return c, err
}

// environment merges the defaults, the image's and the request's; a later KEY replaces an earlier one.
func environment(who account, tty bool, more ...[]string) []string {
	env := []string{
		"PATH=" + defaultPath, "HOME=" + who.home, "USER=" + who.name, "LOGNAME=" + who.name, "SHELL=" + who.shell,
	}
	if tty {
		env = append(env, "TERM=xterm-256color")
	}
	at := make(map[string]int, len(env)+8)
	for i, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		at[key] = i
	}
	for _, list := range more {
		for _, kv := range list {
			key, _, ok := strings.Cut(kv, "=")
			if !ok || key == "" || strings.Contains(kv, "\x00") {
				continue // no process can be given it
			}
			if i, ok := at[key]; ok {
				env[i] = kv
				continue
			}
			at[key] = len(env)
			env = append(env, kv)
		}
	}
	return env
}

func getenv(env []string, key string) string {
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// workingDir is dir, relative to the user's home; the home itself when empty, or / where there is no such home.
func workingDir(dir string, who account) (string, error) {
	if dir == "" {
		if unix.Access(who.home, unix.X_OK) != nil {
			return "/", nil
		}
		return who.home, nil
	}
	if !path.IsAbs(dir) {
		dir = path.Join(who.home, dir)
	}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", cannot(codeCannot, "cannot run in directory %s: %v", dir, reason(err))
	case !st.IsDir():
		return "", cannot(codeCannot, "cannot run in %s: it is not a directory", dir)
	}
	return dir, nil
}

// lookPath finds name along search as a process in dir would. Like a shell it goes on past what cannot be run, and
// remembers it for the error.
func lookPath(name, search, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, runnable(name, within(dir, name))
	}
	var blocked error
	for d := range strings.SplitSeq(search, ":") {
		full := within(dir, path.Join(d, name))
		there, err := look(name, full)
		if there && err == nil {
			return full, nil
		}
		if there && blocked == nil {
			blocked = err
		}
	}
	if blocked != nil {
		return "", blocked
	}
	return "", cannot(codeNotFound, "command %q not found in the guest (PATH=%s)", name, search)
}

func within(dir, name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(dir, name)
}

// runnable says why full cannot be executed, nil when it looks as if it can.
func runnable(name, full string) error {
	there, err := look(name, full)
	if !there {
		return cannot(codeNotFound, "%s: not found in the guest", name)
	}
	return err
}

// look says whether something is at full, and why that cannot be executed. Most places that are looked at have nothing: that
// costs no sentence.
func look(name, full string) (there bool, err error) {
	var st unix.Stat_t
	err = unix.Stat(full, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return true, cannot(codeCannot, "%s: %v", name, reason(err))
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return true, cannot(codeCannot, "%s: is a directory", full)
	case st.Mode&unix.S_IFMT != unix.S_IFREG, st.Mode&0o111 == 0:
		return true, cannot(codeCannot, "%s: not executable", full)
	}
	return true, nil
}

// forkFailed words what the kernel said to fork, chdir, setuid or exec of c.
func forkFailed(c command, err error) *startError {
	switch {
	case errors.Is(err, unix.ENOENT):
		// It was there a moment ago: what is missing is what its first line or its ELF header names.
		return cannot(codeNotFound, "%s: its interpreter or loader is not in the guest", c.path)
	case errors.Is(err, unix.ENOEXEC):
		return cannot(codeCannot, "%s: exec format error (no program for this machine, and no #! line)", c.path)
	case errors.Is(err, unix.EAGAIN):
		return cannot(codeCannot, "%s: the guest is out of processes", c.path)
	}
	return cannot(codeCannot, "%s: %v (as user %s, in %s)", c.path, reason(err), c.who.name, c.dir)
}

// reason is the bare cause of a path error: the sentence around it names the path.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
