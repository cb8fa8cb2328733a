// Command host-diff runs a command and fails when it leaves anything on the host:
//
//	host-diff COMMAND [ARG...]
//
// It is the reaper of every descendant of the command, daemons included, so no process can get away; the command gets
// a temporary directory of its own, with BANGER_ROOT in it, which must be empty at the end; mounts, loop and
// device-mapper devices, links, nftables rules, network namespaces, cgroups, bound sockets and banger's own directories are compared before
// and after. Others use the host at the same time: what is new and not the command's own is only told (judge).
//
// What is left of processes and temporary files is removed once reported. The exit status is the command's, or 1.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/paths"
	"banger/internal/testhost"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: host-diff COMMAND [ARG...]")
		os.Exit(2)
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "host-diff:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// run returns the command's exit status, and an error that tells what it left.
func run(argv []string) (int, error) {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return 127, err
	}
	home, err := paths.Default()
	if err != nil {
		return 1, err
	}
	tmp, err := os.MkdirTemp("", "hd-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.Remove(tmp) }()        // removes it when empty, as it is by then
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // apt's unprivileged user works below it
		return 1, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	before, err := testhost.Take(home.State, home.Run, home.Cache)
	if err != nil {
		return 1, err
	}

	// Ctrl-C reaches the command by itself; this program stays to look after it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	child, err := os.StartProcess(program, argv, &os.ProcAttr{
		Env:   environment(map[string]string{"TMPDIR": tmp, "BANGER_ROOT": filepath.Join(tmp, "root")}),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 126, err
	}
	pid := child.Pid
	go func() {
		for s := range signals {
			if s == unix.SIGTERM {
				_ = unix.Kill(pid, unix.SIGTERM)
			}
		}
	}()
	status, err := reapUntil(pid)
	if err != nil {
		return 1, err
	}

	processes := stragglers()
	after, err := testhost.Take(home.State, home.Run, home.Cache)
	if err != nil {
		return status, err
	}
	own, err := marks(tmp)
	if err != nil {
		return status, err
	}
	left, notes := judge(without("process", before), without("process", after), own)
	if notes != "" {
		fmt.Fprint(os.Stderr, "host-diff: this changed on the host meanwhile, and is not the command's:\n", notes)
	}
	inTmp := ""
	if !slices.ContainsFunc(left, isMount) { // never delete through a mount that was left
		if inTmp, err = empty(tmp); err != nil {
			return status, err
		}
	}
	if report := processes + testhost.Diff(nil, left) + inTmp; report != "" {
		return status, errors.New("the command did not leave the host as it found it:\n" + strings.TrimSuffix(report, "\n"))
	}
	return status, nil
}

// environment is this process's with some variables set. A variable that is there twice would have two values.
func environment(set map[string]string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		_, ours := set[k]
		return ours
	})
	for k, v := range set {
		env = append(env, k+"="+v)
	}
	return env
}

// marks are the paths of the command's own things, as it and as the kernel names them: its temporary directory, and
// what this clone keeps between runs.
func marks(tmp string) ([]string, error) {
	clone, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	own := []string{tmp, filepath.Join(clone, ".cache")}
	for _, p := range own {
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			own = append(own, real)
		}
	}
	return own, nil
}

func isMount(i testhost.Item) bool { return i.Kind == "mount" }

func without(kind string, s testhost.Snapshot) testhost.Snapshot {
	var kept testhost.Snapshot
	for _, i := range s {
		if i.Kind != kind {
			kept = append(kept, i)
		}
	}
	return kept
}

// empty lists what lies in dir, and deletes it.
func empty(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		fmt.Fprintf(&b, "+ temporary  %s\n", path)
		if err := os.RemoveAll(path); err != nil {
			return b.String(), err
		}
	}
	return b.String(), nil
}
