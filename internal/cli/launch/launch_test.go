package launch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/lockfile"
	"banger/internal/paths"
	"banger/internal/vm"
)

// root makes a short directory: sockets lie below it.
func root(t *testing.T) paths.Paths {
	t.Helper()
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return paths.Under(dir)
}

// script makes a daemon of a shell script.
func script(t *testing.T, p paths.Paths, text string) Launcher {
	t.Helper()
	file := filepath.Join(p.Root, "daemon")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return Launcher{Paths: p, Find: func() (string, error) { return file, nil }}
}

func TestStart(t *testing.T) {
	for _, c := range []struct {
		name, script string
		code         vm.Code // empty = it starts
		says, hint   string
	}{
		{"ready", `echo '{"ready":true,"version":"1"}' >&3`, "", "", ""},
		{"detached", `[ "$BANGERD_READY_FD" = 3 ] && [ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] && echo '{"ready":true}' >&3`, "", "", ""},
		{"refuses", `echo '{"error":{"code":"corrupt","message":"the database is corrupt","hint":"keep it"}}' >&3`, vm.CodeCorrupt, "the database is corrupt", "keep it"},
		{"dies", "echo last words; exit 3", vm.CodeUnavailable, "exit status 3", "last words"},
		{"dies silently", "exit 0", vm.CodeUnavailable, "exit status 0", "no word"},
		{"says something else", "echo hello >&3", vm.CodeInternal, `"hello\n"`, "same build"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := script(t, root(t), c.script).Start(context.Background())
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if vm.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(vm.HintOf(err), c.hint) {
				t.Errorf("%v (%s, %q)", err, vm.CodeOf(err), vm.HintOf(err))
			}
		})
	}
}

// What keeps a daemon from being started is told as that: there is none that went away.
func TestNoLock(t *testing.T) {
	p := root(t)
	if err := os.MkdirAll(p.StartLock(), 0o700); err != nil {
		t.Fatal(err)
	}
	err := script(t, p, `echo '{"ready":true}' >&3`).Start(context.Background())
	if vm.CodeOf(err) != vm.CodeUnavailable || !strings.HasPrefix(err.Error(), "start the daemon: open lock file: ") || !strings.Contains(vm.HintOf(err), "write in "+p.Root+";") {
		t.Errorf("%v (%s, %q)", err, vm.CodeOf(err), vm.HintOf(err))
	}
}

// A daemon that somebody else began takes the lock only after it was looked for: ours gives way, and that one is as good.
func TestAnotherDaemonIsQuicker(t *testing.T) {
	p := root(t)
	l := script(t, p, `echo '{"error":{"code":"conflict","message":"another bangerd serves"}}' >&3`)
	find := l.Find
	l.Find = func() (string, error) {
		other, err := net.Listen("unix", p.Socket())
		if err != nil {
			return "", err
		}
		t.Cleanup(func() { other.Close() })
		go func() {
			_ = http.Serve(other, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })) //nolint:gosec // a test's
		}()
		return find()
	}
	if err := l.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a caller's shell holds open ("exec 9>lock") must not be held for as long as the daemon lives.
func TestDescriptorsOfTheCallerAreNotTheDaemons(t *testing.T) {
	p := root(t)
	const theirs = 200
	f, err := os.Create(filepath.Join(p.Root, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), theirs, 0); err != nil { // inherited by every child
		t.Fatal(err)
	}
	defer unix.Close(theirs)
	err = script(t, p, `[ -e /proc/$$/fd/200 ] && exit 7; echo '{"ready":true}' >&3`).Start(context.Background())
	if err != nil {
		t.Errorf("%v: %s", err, vm.HintOf(err))
	}
}

func TestOldWordsAreNotThisDaemons(t *testing.T) {
	p := root(t)
	if err := os.WriteFile(p.DaemonLog(), []byte("yesterday\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := script(t, p, "echo today; exit 1").Start(context.Background())
	if hint := vm.HintOf(err); strings.Contains(hint, "yesterday") || !strings.Contains(hint, "today") {
		t.Errorf("hint %q", hint)
	}
}

func TestDirectoriesArePrivate(t *testing.T) {
	p := root(t)
	if err := script(t, p, `echo '{"ready":true}' >&3`).Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(p.Run); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestNoBinary(t *testing.T) {
	missing := vm.Errorf(vm.CodeMissing, "find bangerd")
	l := Launcher{Paths: root(t), Find: func() (string, error) { return "", missing }}
	if err := l.Start(context.Background()); !errors.Is(err, missing) {
		t.Error(err)
	}
}

// TestCtrlC: the wait ends, whoever is being waited for.
func TestCtrlC(t *testing.T) {
	why := errors.New("Ctrl-C")
	for name, hold := range map[string]func(paths.Paths) string{
		"the daemon":          func(paths.Paths) string { return "" },
		"another CLI":         paths.Paths.StartLock,
		"a daemon going down": paths.Paths.DaemonLock,
	} {
		t.Run(name, func(t *testing.T) {
			p := root(t)
			l := script(t, p, `exec sleep 3`)
			if file := hold(p); file != "" {
				if err := os.MkdirAll(p.Run, 0o700); err != nil {
					t.Fatal(err)
				}
				unlock, err := lockfile.Take(context.Background(), file)
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
			if err := l.Start(ctx); !errors.Is(err, why) {
				t.Error(err)
			}
		})
	}
}

func TestWaitGoneWithoutAnyDaemon(t *testing.T) {
	p := root(t)
	if err := WaitGone(context.Background(), p); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Run); err == nil {
		t.Error("asking makes the directory")
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("old\n"+strings.Repeat("line\n", 3000)+"last\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tailOf(file, 4); strings.Count(got, "\n") != tailLines-1 || !strings.HasSuffix(got, "line\nlast") {
		t.Errorf("%q", got)
	}
	if got := tailOf(file, 1<<30); got == "" {
		t.Error("a log that was rotated has no tail")
	}
	if got := tailOf(file+"-none", 0); got != "" {
		t.Errorf("%q", got)
	}
}
