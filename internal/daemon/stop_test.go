package daemon_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/cli/launch"
	"banger/internal/testhost"
)

// TestStopLeavesNoWorkBehind: a stopped daemon has ended what it was building, and removed the half of it.
func TestStopLeavesNoWorkBehind(t *testing.T) {
	t.Parallel()
	testhost.Need(t, testhost.Root, testhost.Mmdebstrap) // a fake is run, where a real build could
	p := newPlace(t)
	testhost.Leaks(t, p.Root)
	bin := filepath.Join(p.Root, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apt-get", "mmdebstrap"} {
		// Enough files that removing them takes longer than a daemon that does not wait for that.
		script := fmt.Sprintf("#!/bin/sh\n[ $(basename $0) = apt-get ] || cd $TMPDIR\nfor i in $(seq 5000); do : > $i; done\n: > %s/%s.runs\nsleep 600 & wait\n", p.Root, name)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"))
	ended := make(chan string, 2)
	for _, args := range [][]string{{"kernel", "import", "apt:linux-image-x", "--name", "x"}, {"image", "build", "debian-bookworm"}} {
		go func() {
			out, err := p.command(t, "banger", args...).CombinedOutput()
			ended <- fmt.Sprintf("%v: %v: %s", args, err, out)
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, name := range []string{"apt-get", "mmdebstrap"} {
		for {
			if _, err := os.Stat(filepath.Join(p.Root, name+".runs")); err == nil {
				break
			}
			select {
			case how := <-ended:
				t.Fatalf("it ended before it ran %s: %s", name, how)
			case <-ctx.Done():
				t.Fatalf("%s is not run", name)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	p.run(t, "banger", "daemon", "stop")
	if err := launch.WaitGone(ctx, p.Paths); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{p.Kernels(), p.Images()} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			t.Errorf("in %s are %v, %v", dir, entries, err)
		}
	}
	for range 2 {
		if how := <-ended; strings.Contains(how, "panic") || strings.Contains(how, ": <nil>:") {
			t.Errorf("%s", how)
		}
	}
}

// A stop waits for the daemon that it stopped. Another, which waited for that one's lock and serves now, is not its affair.
func TestStopIsOfOneDaemon(t *testing.T) {
	p := newPlace(t)
	p.run(t, "banger", "vm", "list")
	second := p.command(t, "bangerd")
	must(t, second.Start())
	t.Cleanup(func() { _ = second.Wait() })
	<-time.After(500 * time.Millisecond) // it waits for two seconds; nothing tells that it has begun to
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stop := exec.CommandContext(ctx, "banger", "daemon", "stop")
	stop.Env = p.env
	if out, err := stop.CombinedOutput(); err != nil {
		t.Errorf("daemon stop: %v: %s", err, out)
	}
	// It is about to serve, or does: between the two nobody does.
	for p.command(t, "banger", "daemon", "status").Run() != nil && ctx.Err() == nil {
		<-time.After(5 * time.Millisecond)
	}
	var s struct{ PID int }
	if status(t, p, &s); s.PID != second.Process.Pid {
		t.Errorf("daemon %d serves, want %d", s.PID, second.Process.Pid)
	}
	p.run(t, "banger", "daemon", "stop")
}
