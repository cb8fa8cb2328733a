package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testhost"
)

// TestMain lets the test binary run again as host-diff.
func TestMain(m *testing.M) {
	if os.Getenv("BANGER_TEST_HOST_DIFF") == "1" {
		main()
	}
	os.Exit(m.Run())
}

func TestJudge(t *testing.T) {
	cgroups := t.TempDir()
	for name, procs := range map[string]string{"banger-0123456789ab": "", "banger-ba9876543210": "4242\n"} {
		dir := filepath.Join(cgroups, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(procs), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	marks := []string{"/tmp/hd-1", "/src/banger/.cache"}
	for _, c := range []struct {
		kind, text string
		left       bool
	}{
		{"socket", "/tmp/hd-1/bt-7/run/bangerd.sock", true},
		{"socket", "/src/banger/.cache/test/root/run/bangerd.sock", true},
		{"socket", "/tmp/hd-12/run/bangerd.sock", false}, // another clone's run
		{"socket", "/tmp/elsewhere/run/bangerd.sock", false},
		{"socket", "/run/user/1000/bus", false},
		{"mount", "/dev/loop0 on /tmp/hd-1/bt-7/mnt type xfs", true},
		{"mount", "tmpfs on /tmp/hd-1 type tmpfs", true},
		{"mount", "/tmp/hd-12/a on /tmp/hd-1/b type none", true},
		{"mount", "overlay on /var/lib/docker/overlay2/x/merged type overlay", false},
		{"loop", "loop3 /tmp/hd-1/bt-7/disk", true},
		{"loop", "loop3 /tmp/hd-1/bt-7/disk (deleted)", true},
		{"loop", "loop4 /var/lib/snapd/snaps/x.snap", false},
		{"dm", "dm-0 banger-0123456789ab", true},
		{"dm", "dm-1 vg0-home", false},
		{"link", "bt0123456789ab", true},
		{"link", "docker0", false},
		{"link", "btrfs0", false},
		{"nft", "table inet banger: chain forward {", true},
		{"nft", "table ip nat: oifname \"banger0\" masquerade", false},
		{"netns", "net:[4026532000] at /run/netns/bt0123456789ab", true},
		{"netns", "net:[4026532001] at /run/docker/netns/1-abc", false},
		{"netns", "net:[4026532002] of 42 (started at 7) /usr/bin/bangerd", false}, // another's, in a container
		{"cgroup", filepath.Join(cgroups, "banger-0123456789ab"), true},
		{"cgroup", filepath.Join(cgroups, "banger-ba9876543210"), false}, // somebody lives in it
		{"cgroup", filepath.Join(cgroups, "my-banger.service"), false},
		{"file", "/var/lib/banger/images/x", false},
	} {
		there := testhost.Item{Kind: "link", Text: "lo"}
		item := testhost.Item{Kind: c.kind, Text: c.text}
		left, notes := judge(testhost.Snapshot{there}, testhost.Snapshot{there, item}, marks)
		if got := len(left) == 1; got != c.left || got == strings.Contains(notes, "+ "+item.String()) {
			t.Errorf("new %v: left %v, notes %q; want it to count: %v", item, left, notes, c.left)
		}
		// Whatever it is: what was there before was not left, and what is gone is told.
		if left, notes := judge(testhost.Snapshot{item}, testhost.Snapshot{item}, marks); left != nil || notes != "" {
			t.Errorf("old %v: left %v, notes %q", item, left, notes)
		}
		if left, notes := judge(testhost.Snapshot{item}, nil, marks); left != nil || notes != "- "+item.String()+"\n" {
			t.Errorf("%v is gone: left %v, notes %q", item, left, notes)
		}
	}
}

// TestRun has host-diff run real commands.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, script string
		status       int
		words        string
	}{
		{"nothing left", "true", 0, ""},
		{"the command's status", "exit 7", 7, ""},
		{"a file", `touch "$TMPDIR/stray"`, 1, "/stray"},
		{"a process", "setsid sleep 1000 &", 1, "sleep 1000"},
		{"a process that ends soon", "setsid sleep 0.2 &", 0, ""},
		{"roots are in the temporary directory", `[ "$BANGER_ROOT" = "$TMPDIR/root" ]`, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			cmd := exec.Command("/proc/self/exe", "sh", "-c", c.script)
			cmd.Env = append(os.Environ(), "BANGER_TEST_HOST_DIFF=1", "TMPDIR="+tmp, "BANGER_ROOT=/elsewhere")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run()
			said := out.String()
			if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(said, c.words) {
				t.Errorf("status %d, want %d and %q in:\n%s", got, c.status, c.words, said)
			}
			if complained := strings.Contains(said, "did not leave"); complained != (c.words != "") {
				t.Errorf("complained: %v:\n%s", complained, said)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
				t.Errorf("host-diff itself leaves %v, %v", left, err)
			}
		})
	}
}
