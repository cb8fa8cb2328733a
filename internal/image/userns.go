package image

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"banger/internal/vm"
)

// subordinateIDs are how many ids a tree of Debian's needs beside root's: nobody is 65534.
const subordinateIDs = 65536

// CanBuild says why no image can be built here: programs, keys, or what an ordinary user needs of root once. It tries and
// leaves nothing. Errors: vm.CodeMissing, with the command that helps.
func (l *Library) CanBuild(ctx context.Context) error {
	if l.cfg.Steps != nil {
		return nil // not this host's programs
	}
	return checkBootstrap(ctx)
}

// checkNamespace tries what the steps of an ordinary user's build stand on: to be root, and everybody else, in a user
// namespace.
func checkNamespace(ctx context.Context) error {
	if os.Geteuid() == 0 {
		return nil
	}
	args := asRoot("true")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	name := ""
	if u, uerr := user.Current(); uerr == nil { // of one that /etc/passwd does not know, what its login says
		name = u.Username
	}
	return explainNamespace(os.DirFS("/"), name, os.Geteuid(), err, strings.TrimSpace(string(out)))
}

// explainNamespace says what keeps an ordinary user from building, by what the host has and how the trial ended. name is
// empty where the user has none. nil = nothing does.
func explainNamespace(host fs.FS, name string, uid int, trial error, said string) error {
	const what = "an ordinary user builds images in a user namespace"
	if name == "" { // mmdebstrap looks for no number
		return vm.Errorf(vm.CodeMissing, "%s, and user %d has no name on this host to give ids to", what, uid).
			WithHint("as root: useradd -u %d NAME", uid)
	}
	for _, s := range []struct{ path, bad, key, good string }{
		{"proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces", "10000"},
		{"proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone", "1"},
		{"proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns", "0"},
	} {
		b, err := fs.ReadFile(host, s.path)
		if trial != nil && err == nil && strings.TrimSpace(string(b)) == s.bad {
			return vm.Errorf(vm.CodeMissing, "%s, and this host does not let one: %s is %s", what, s.key, s.bad).
				WithHint("as root: sysctl -w %s=%s; a file in /etc/sysctl.d keeps it", s.key, s.good)
		}
	}
	var missing []string
	for _, f := range []struct{ path, option string }{{"etc/subuid", "subuids"}, {"etc/subgid", "subgids"}} {
		granted, next := subordinates(host, f.path, name)
		if granted >= subordinateIDs {
			continue
		}
		if granted > 0 { // another line would not be looked at
			return vm.Errorf(vm.CodeMissing, "%s, and the first line of %s in /%s grants %d ids where a build takes %d", what, name, f.path, granted, subordinateIDs).
				WithHint("as root: put %s:%d:%d there instead", name, next, subordinateIDs)
		}
		missing = append(missing, fmt.Sprintf("--add-%s %d-%d", f.option, next, next+subordinateIDs-1))
	}
	if len(missing) > 0 {
		return vm.Errorf(vm.CodeMissing, "%s, and %s has no ids of its own for it (/etc/subuid, /etc/subgid)", what, name).
			WithHint("as root: usermod %s %s", strings.Join(missing, " "), name)
	}
	if trial != nil {
		return vm.Errorf(vm.CodeMissing, "%s, which does not work here: run %s: %w: %s", what, strings.Join(asUserRoot("true"), " "), trial, said).
			WithHint("newuidmap and newgidmap must be there and set-user-id root (package uidmap), and the kernel let users make user namespaces; or build as root")
	}
	return nil
}

// subordinates are the ids that the first line of a user gives it, and the first that nobody has, from subuid(5).
// mmdebstrap looks at the first line alone.
func subordinates(host fs.FS, path, name string) (granted, next int64) {
	next = 100000 // as useradd begins
	f, err := host.Open(path)
	if err != nil {
		return 0, next
	}
	defer func() { _ = f.Close() }()
	seen := false
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(fields) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(fields[1], 10, 64)
		n, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err1 != nil || err2 != nil || n < 1 {
			continue
		}
		if fields[0] == name && !seen {
			granted, seen = n, true
		}
		next = max(next, first+n)
	}
	return granted, next
}
