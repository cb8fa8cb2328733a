package crashtest

import (
	"os/exec"
	"strings"
	"testing"
)

func TestOffset(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "-1": -1, "x": -1, "1x": -1} {
		t.Setenv(OffsetEnv, text)
		got, err := Offset(".")
		if (err != nil) != (want < 0) || err == nil && got != want || err != nil && !strings.Contains(err.Error(), OffsetEnv+"="+text) {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for id, want := range map[string]int{"00ff0000": 255, "1234cdef": 0x1234, "7b1": 0x7b1, "": 0, "HEAD": 0} {
		if got := ofCommit(id); got != want {
			t.Errorf("of commit %q: %d, want %d", id, got, want)
		}
	}
}

// TestOffsetFollowsTheCommit makes commits in a repository of its own.
func TestOffsetFollowsTheCommit(t *testing.T) {
	t.Setenv(OffsetEnv, "")
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	dir := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", dir)
	if n, err := Offset(dir); n != 0 || err != nil {
		t.Errorf("without a repository: %d, %v", n, err)
	}
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	for _, message := range []string{"one", "two"} {
		git("commit", "-q", "--allow-empty", "-m", message)
		n, err := Offset(dir)
		if want := ofCommit(git("rev-parse", "HEAD")); n != want || err != nil {
			t.Errorf("%d, %v, want %d", n, err, want)
		}
	}
}
