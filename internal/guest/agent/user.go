package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is whom a process runs as.
type account struct {
	name, home, shell string
	uid, gid          uint32
	groups            []uint32 // supplementary
}

// account is lookupAccount, with root for "": the common case, of which groups need not be known, since they change nothing
// that root may do.
func (s *Server) account(user string) (account, error) {
	if user != "" {
		return lookupAccount(user)
	}
	passwd, err := s.passwd.read()
	if err != nil {
		return account{}, err
	}
	return findAccount(passwd, "", "root")
}

// lookupAccount resolves "name|uid[:group]" by the guest's own /etc/passwd and /etc/group. A uid without
// an entry is fine, a name without one is not.
func lookupAccount(user string) (account, error) {
	passwd, err := readOptional("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := readOptional("/etc/group")
	if err != nil {
		return account{}, err
	}
	return findAccount(passwd, group, user)
}

func readOptional(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look up the user: %w", err)
	}
	return string(b), nil
}

// findAccount is lookupAccount on the files' content.
func findAccount(passwd, group, user string) (account, error) {
	who, groupName, withGroup := strings.Cut(user, ":")
	a, found := scanPasswd(passwd, who)
	if !found {
		id, err := strconv.ParseUint(who, 10, 32)
		switch {
		case who == "root":
			a = account{name: "root", home: "/root", shell: "/bin/sh"} // an image without /etc/passwd
		case err == nil:
			a = account{name: who, home: "/", shell: "/bin/sh", uid: uint32(id)}
		default:
			return account{}, fmt.Errorf("no user %q in the guest", who)
		}
	}
	if !withGroup {
		a.groups = scanGroups(group, a.name, a.gid)
		return a, nil
	}
	gid, found := scanGroup(group, groupName)
	if !found {
		id, err := strconv.ParseUint(groupName, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("no group %q in the guest", groupName)
		}
		gid = uint32(id)
	}
	a.gid = gid // and no supplementary groups: a group was asked for, and only that one
	return a, nil
}

// scanPasswd finds a user by name, else by number, in passwd(5) format.
func scanPasswd(passwd, who string) (account, bool) {
	var byID account
	var found bool
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 7 || f[0] == "" {
			continue
		}
		if f[0] != who && (f[2] != who || found) {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		a := account{name: f[0], home: f[5], shell: f[6], uid: uint32(uid), gid: uint32(gid)}
		if a.home == "" {
			a.home = "/"
		}
		if a.shell == "" {
			a.shell = "/bin/sh" // as passwd(5) says
		}
		if f[0] == who {
			return a, true
		}
		byID, found = a, true
	}
	return byID, found
}

// scanGroup finds a group's number by name, in group(5) format.
func scanGroup(group, name string) (uint32, bool) {
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 3 || f[0] != name || name == "" {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			return uint32(gid), true
		}
	}
	return 0, false
}

// scanGroups lists the groups user is a member of, its own first where there are others.
func scanGroups(group, user string, gid uint32) []uint32 {
	var gids []uint32
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || id == uint64(gid) || slices.Contains(gids, uint32(id)) {
			continue
		}
		gids = append(gids, uint32(id))
	}
	return gids
}

// credential is nil for root, whose processes need no change.
func (a account) credential() *syscall.Credential {
	if a.uid == 0 && a.gid == 0 && len(a.groups) == 0 {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}
