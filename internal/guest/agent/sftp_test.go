package agent

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

// TestSSHCopies runs the real scp and sftp both ways, for root and for an ordinary user.
func TestSSHCopies(t *testing.T) {
	testhost.Need(t, testhost.SSH, testhost.Root)
	h := serveSSHHost(t)
	for _, name := range []string{"root", "nobody"} {
		t.Run(name, func(t *testing.T) {
			who, err := user.Lookup(name)
			if err != nil {
				t.Skipf("needs a user %s: %v", name, err)
			}
			h.testCopies(t, who)
		})
	}
}

func (h *sshHost) testCopies(t *testing.T, who *user.User) {
	dir := t.TempDir()
	uid, _ := strconv.Atoi(who.Uid)
	must(t, os.Chmod(filepath.Dir(dir), 0o711)) // the way for the user
	if uid != os.Geteuid() {
		must(t, os.Chown(dir, uid, -1))
	}
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	if err := os.WriteFile(filepath.Join(dir, "a"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	batch := filepath.Join(dir, "batch")
	text := fmt.Sprintf("put %s/a %s/c\nget %s/c %s/d\nls -l %s\n", dir, dir, dir, dir, dir)
	if err := os.WriteFile(batch, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	remote := who.Username + "@127.0.0.1"
	for _, cmd := range [][]string{
		append(append([]string{"scp"}, h.options()...), filepath.Join(dir, "a"), remote+":"+filepath.Join(dir, "b")),
		append(append([]string{"scp"}, h.options()...), remote+":"+filepath.Join(dir, "b"), filepath.Join(dir, "e")),
		append(append([]string{"sftp", "-b", batch}, h.options()...), remote),
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd[0], err, out)
		}
	}
	for _, name := range []string{"b", "c", "d", "e"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "b"), &st); err != nil || int(st.Uid) != uid {
		t.Errorf("what %s sent belongs to %d, %v", who.Username, st.Uid, err)
	}
	if uid == 0 {
		return
	}
	// It may do what its user may, and no more.
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, nil, 0o600))
	get := exec.Command("scp", append(h.options(), remote+":"+secret, filepath.Join(dir, "f"))...)
	if out, err := get.CombinedOutput(); err == nil || !strings.Contains(strings.ToLower(string(out)), "permission denied") {
		t.Errorf("read root's file: %v\n%s", err, out)
	}
}
