package testhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// User is an ordinary user with a name, a home directory and ids for user namespaces, as useradd makes one. The host's own
// files of users stay as they are: only in a mount namespace of the test's are there others, and a process of the user's
// lives there.
type User struct {
	Name string
	UID  int
	Home string // short, the user's, and with a space: what is not quoted shows
	Bin  string // is in the user's PATH: a place for programs that lie where only root looks

	holder int // a process in the namespace
}

const (
	firstUser = 60600 // neither useradd's, nor systemd's (man 5 login.defs; UIDS-GIDS of systemd)
	firstID   = 1 << 30
)

// NewUser makes one; without ids it has none in /etc/subuid and /etc/subgid. It goes with the test.
func NewUser(t testing.TB, ids bool) *User {
	t.Helper()
	Need(t, Root)
	dir := Dir(t)
	u := &User{Name: "banger-test", UID: firstUser, Home: filepath.Join(dir, "a home"), Bin: filepath.Join(dir, "bin")}
	for { // one that nobody has
		if _, err := user.LookupId(strconv.Itoa(u.UID)); err != nil {
			break
		}
		u.UID++
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(u.Home, 0o755), os.Chown(u.Home, u.UID, u.UID), os.Mkdir(u.Bin, 0o755)); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		if fi, err := os.Stat(up); err != nil || fi.Mode().Perm()&0o001 == 0 {
			t.Fatalf("a user does not come through %s (%v): set TMPDIR to a directory where one does", up, err)
		}
	}
	script := "set -e\n"
	for file, line := range map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh", u.Name, u.UID, u.UID, u.Home),
		"group":  fmt.Sprintf("%s:x:%d:", u.Name, u.UID),
		"subuid": fmt.Sprintf("%s:%d:65536", u.Name, firstID),
		"subgid": fmt.Sprintf("%s:%d:65536", u.Name, firstID),
	} {
		text, err := os.ReadFile(filepath.Join("/etc", file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if ids || !strings.HasPrefix(file, "sub") {
			text = append([]byte(line+"\n"), text...)
		}
		ours := filepath.Join(dir, file)
		if err := os.WriteFile(ours, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/etc/" + file); err == nil {
			script += "mount --bind " + ours + " /etc/" + file + "\n"
		}
	}
	// It ends with its input, and so with the test's process, whatever ends that.
	holder := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script+"echo ready\nread -r end")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	holder.Stderr = &errs
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = holder.Wait()
	})
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		_ = holder.Wait()
		t.Fatalf("give the user a name: %q, %v, %s", said, err, errs.String())
	}
	u.holder = holder.Process.Pid
	return u
}

// Command is a program run as the user, at home, with nothing in its environment but what a login gives and env.
func (u *User) Command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	id := strconv.Itoa(u.UID)
	argv := []string{"--mount=/proc/" + strconv.Itoa(u.holder) + "/ns/mnt", "--wd=" + u.Home, "--",
		"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--", "env", "-i",
		"HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=/bin/sh", "PATH=" + u.Bin + ":/usr/local/bin:/usr/bin:/bin"}
	argv = append(append(argv, env...), args...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = 5 * time.Second // for a child that holds the output open
	return cmd
}
