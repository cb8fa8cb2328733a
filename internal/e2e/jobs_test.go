package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// counts is a command that writes numbered lines until a file says that it shall end, and then how many they were.
const counts = `i=0; while [ ! -e /tmp/enough-$0 ]; do i=$((i+1)); echo "line $i"; sleep 0.02; done; echo "end $i" >&2; exit 7`

// counted wants of the output of counts every line, from the one that first tells on, and as many as it counted.
func counted(t *testing.T, first int, out, errs string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for i, line := range lines {
		if want := "line " + strconv.Itoa(first+i); line != want {
			t.Fatalf("%q where %q was written", line, want)
		}
	}
	if want := fmt.Sprintf("end %d\n", first+len(lines)-1); !strings.Contains(errs, want) {
		t.Errorf("stderr %q, want %q in it", errs, want)
	}
}

// jobs are those of a VM.
func (b *box) jobs(name string) (all []guest.Job) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.ok("vm", "jobs", "--json", name)), &all); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// job is the one whose last argument is this.
func (b *box) job(name, last string) guest.Job {
	b.t.Helper()
	for _, j := range b.jobs(name) {
		if strings.HasSuffix(j.Command, " "+last) {
			return j
		}
	}
	b.t.Fatalf("no job's last argument is %q: %+v", last, b.jobs(name))
	return guest.Job{}
}

func (b *box) untilJob(name, id, what string, is func(guest.Job) bool) guest.Job {
	b.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		for _, j := range b.jobs(name) {
			if j.ID == id && is(j) {
				return j
			}
		}
		if time.Now().After(end) {
			b.t.Fatalf("job %s is never %s: %+v", id, what, b.jobs(name))
		}
	}
}

// Commands outlive their clients, and their daemon, and give all that they wrote to who comes back.
func TestJobs(t *testing.T) {
	beside(t)
	b := newBox(t)
	b.vm("web")
	in := func(flags ...string) []string { return append([]string{"vm", "exec"}, flags...) }
	enough := func(b *box, mark string) { b.ok("vm", "exec", "web", "--", "touch", "/tmp/enough-"+mark) }

	t.Run("detached", func(t *testing.T) {
		b := b.with(t)
		id := strings.TrimSpace(b.ok(in("-d", "web", "--", "sh", "-c", counts, "d")...))
		if j := b.job("web", "d"); j.ID != id || j.State != guest.JobRunning || !j.Keep || j.Clients != 0 {
			t.Errorf("%+v", j)
		}
		b.untilJob("web", id, "writing", func(j guest.Job) bool { return j.Output > 100 })
		enough(b, "d")
		out, errs, code := b.run(nil, "vm", "attach", "web", id[:5])
		if counted(t, 1, out, errs); code != 7 {
			t.Errorf("exit code %d", code)
		}
		if again, _, code := b.run(nil, "vm", "attach", "web", id); again != out || code != 7 { // it has ended
			t.Errorf("asked again: exit code %d, %d bytes of %d", code, len(again), len(out))
		}
		if look := b.ok("vm", "logs", "--exec", id, "web"); look != out {
			t.Errorf("vm logs --exec: %d bytes of %d", len(look), len(out))
		}
		b.fails(127, "no-such", in("-d", "web", "--", "no-such")...)
	})
	t.Run("by when it came", func(t *testing.T) {
		b := b.with(t)
		id := strings.TrimSpace(b.ok(in("-d", "web", "--", "sh", "-c", "echo old; until [ -e /tmp/enough-o ]; do sleep 0.1; done; echo err >&2; until [ -e /tmp/enough-t ]; do sleep 0.1; done; echo new")...))
		b.untilJob("web", id, "writing", func(j guest.Job) bool { return j.Output == 4 }) // two pipes keep no order between them
		enough(b, "o")
		b.untilJob("web", id, "writing", func(j guest.Job) bool { return j.Output == 8 })
		between := strings.TrimSpace(b.ok("vm", "exec", "web", "--", "date", "-u", "+%FT%T.%NZ")) // by the guest's clock
		enough(b, "t")
		b.untilJob("web", id, "over", func(j guest.Job) bool { return j.State == guest.JobExited })
		for _, tt := range []struct {
			flags []string
			want  string
		}{
			{[]string{"--since", between}, "new\n"}, {[]string{"--until", between}, "old\n"}, {[]string{"--since", "1h"}, "old\nnew\n"},
			{[]string{"-f", "--since", between}, "new\n"}, {[]string{"--since", "0s"}, ""},
			{[]string{"-n", "1"}, "new\n"}, {[]string{"-n", "3"}, "old\nnew\n"}, {[]string{"-f", "-n", "2"}, "new\n"}, // one of them on stderr
			{[]string{"--until", between, "-n", "2"}, "old\n"}, {[]string{"-n", "0"}, ""},
		} {
			if got, _, code := b.run(nil, append(append([]string{"vm", "logs", "--exec", id}, tt.flags...), "web")...); got != tt.want || code != 0 {
				t.Errorf("%q: %q, want %q; exit code %d", tt.flags, got, tt.want, code)
			}
		}
		var times []time.Time
		for line := range strings.Lines(b.ok("vm", "logs", "-t", "--exec", id, "web")) {
			when, text, _ := strings.Cut(line, " ")
			at, err := time.Parse(time.RFC3339, when)
			if err != nil || text != []string{"old\n", "new\n"}[min(len(times), 1)] {
				t.Errorf("%q: %v", line, err)
			}
			times = append(times, at)
		}
		mid, err := time.Parse(time.RFC3339, between)
		if err != nil || len(times) != 2 || times[0].After(mid) || times[1].Before(mid) || time.Since(times[0]).Abs() > 5*time.Minute {
			t.Errorf("times %s, and in between it was %s; %v", times, between, err)
		}
	})
	t.Run("a client is killed", func(t *testing.T) {
		b := b.with(t)
		cmd := b.command(in("web", "--", "sh", "-c", counts, "k")...)
		var seen lockedBuffer
		cmd.Stdout = &seen
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen.until(t, "line 5\n")
		j := b.job("web", "k")
		if j.Clients != 1 || j.Keep {
			t.Errorf("%+v", j)
		}
		id := j.ID
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		had := seen.String()
		b.untilJob("web", id, "left", func(j guest.Job) bool { return j.Clients == 0 })
		// What it showed, cut at a line, is where the next one goes on.
		had = had[:strings.LastIndex(had, "\n")+1]
		b.untilJob("web", id, "writing on", func(j guest.Job) bool { return j.Output > int64(len(had))+100 })
		enough(b, "k")
		out, errs, code := b.run(nil, "vm", "attach", "--from", strconv.Itoa(len(had)), "web", id)
		if counted(t, 1+strings.Count(had, "\n"), out, errs); code != 7 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the daemon is killed", func(t *testing.T) {
		b := b.with(t)
		detached := strings.TrimSpace(b.ok(in("-d", "web", "--", "sh", "-c", counts, "p")...))
		cmd := b.command(in("web", "--", "sh", "-c", counts, "p", "attached")...)
		var out, errs lockedBuffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.until(t, "line 5\n")
		kill9(t, b.daemonPID())
		_ = cmd.Wait()
		_, hint, ok := strings.Cut(strings.TrimSpace(errs.String()), "banger vm attach ")
		if !ok || cmd.ProcessState.ExitCode() != 125 {
			t.Fatalf("exit code %d, stderr %q", cmd.ProcessState.ExitCode(), errs.String())
		}
		had := b.untilJob("web", detached, "there", func(guest.Job) bool { return true }).Output // by the next daemon
		b.untilJob("web", detached, "writing on", func(j guest.Job) bool { return j.Output > had+100 })
		// Two at once, one of whom is there before the end.
		var wg sync.WaitGroup
		first := b.command("vm", "attach", "web", detached)
		var firstOut, firstErrs lockedBuffer
		first.Stdout, first.Stderr = &firstOut, &firstErrs
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		firstOut.until(t, "line 5\n")
		wg.Go(func() {
			out, errs, code := b.run(nil, "vm", "attach", "web", detached)
			if counted(t, 1, out, errs); code != 7 {
				t.Errorf("the second client: exit code %d", code)
			}
		})
		b.untilJob("web", detached, "attached to twice", func(j guest.Job) bool { return j.Clients == 2 })
		enough(b, "p")
		_ = first.Wait()
		if counted(t, 1, firstOut.String(), firstErrs.String()); first.ProcessState.ExitCode() != 7 {
			t.Errorf("the first client: exit code %d", first.ProcessState.ExitCode())
		}
		wg.Wait()
		// What the hint says gives the rest, to the byte.
		rest, restErrs, code := b.run(nil, append([]string{"vm", "attach"}, strings.Fields(hint)...)...)
		if counted(t, 1, out.String()+rest, restErrs); code != 7 {
			t.Errorf("after the hint %q: exit code %d", hint, code)
		}
	})
	t.Run("more than is kept", func(t *testing.T) {
		b := b.with(t)
		const lines = 400_000
		id := strings.TrimSpace(b.ok(in("-d", "web", "--", "seq", "1000001", strconv.Itoa(1_000_000+lines))...))
		j := b.untilJob("web", id, "ended", func(j guest.Job) bool { return j.State == guest.JobExited })
		out, errs, code := b.run(nil, "vm", "attach", "web", id)
		if want := fmt.Sprintf("[%d bytes dropped]\n", 8*lines-len(out)); errs != want || code != 0 || int64(len(out)) != j.Kept || len(out) > guest.KeptOutput || len(out) < guest.KeptOutput*3/4 {
			t.Errorf("%d bytes came, %+v; stderr %q, exit code %d", len(out), j, errs, code)
		}
		for n := 1_000_000 + lines; len(out) >= 8; n-- {
			if out[len(out)-8:] != strconv.Itoa(n)+"\n" {
				t.Fatalf("%q where %d was written", out[len(out)-8:], n)
			}
			out = out[:len(out)-8]
		}
	})
	t.Run("input and signals", func(t *testing.T) {
		b := b.with(t)
		id := strings.TrimSpace(b.ok(in("-d", "-i", "web", "--", "sha256sum")...))
		want := fmt.Sprintf("%x  -\n", sha256.Sum256([]byte("to a job")))
		if out, errs, code := b.run(strings.NewReader("to a job"), "vm", "attach", "-i", "web", id); out != want || code != 0 {
			t.Errorf("%q, %q, exit code %d", out, errs, code)
		}
		id = strings.TrimSpace(b.ok(in("-d", "web", "--", "sh", "-c", "trap 'echo got-usr1; exit 9' USR1; echo ready; while :; do sleep 0.05; done")...))
		b.untilJob("web", id, "ready", func(j guest.Job) bool { return j.Output > 0 })
		b.ok("vm", "signal", "web", id, "USR1")
		if out, _, code := b.run(nil, "vm", "attach", "web", id); out != "ready\ngot-usr1\n" || code != 9 {
			t.Errorf("%q, exit code %d", out, code)
		}
		b.fails(125, "has ended", "vm", "signal", "web", id)
		b.fails(125, "no job", "vm", "signal", "web", "nope")
	})
	t.Run("a client that hangs up", func(t *testing.T) { testHangUp(t, b.with(t), nil, "hung-up") })
	t.Run("a client that hangs up, and whose input is stuck", func(t *testing.T) {
		testHangUp(t, b.with(t), endless{}, "hung-up-behind-input")
	})
	t.Run("a time", func(t *testing.T) {
		b := b.with(t)
		b.fails(124, "its time", in("--timeout", "1s", "web", "--", "sleep", "1000")...)
		out, errs, code := b.run(nil, in("--timeout", "1s", "web", "--", "sh", "-c", "trap '' TERM; echo begun; while :; do sleep 0.1; done")...)
		if out != "begun\n" || code != 124 {
			t.Errorf("%q, %q, exit code %d", out, errs, code)
		}
		if out, errs, code := b.run(nil, in("--timeout", "10m", "web", "--", "echo", "in time")...); out != "in time\n" || code != 0 {
			t.Errorf("%q, %q, exit code %d", out, errs, code)
		}
	})
	t.Run("variables of a file", func(t *testing.T) {
		b := b.with(t)
		file := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(file, []byte("# of a test\nA=x y\nB=\"q\"\nBANGER_ROOT\nNOT_SET_ANYWHERE\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.ok(in("--env-file", file, "-e", "B=e", "web", "--", "sh", "-c", `echo "$A|$B|$BANGER_ROOT|${NOT_SET_ANYWHERE-unset}"`)...); got != "x y|e|"+b.root+"|unset\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("they go with the guest's boot", func(t *testing.T) {
		b := b.with(t)
		b.ok("vm", "restart", "web")
		if all := b.jobs("web"); len(all) != 0 {
			t.Errorf("%+v", all)
		}
	})
}

// endless is input that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// testHangUp has a client leave a command that does not heed it, by two Ctrl-C. The command goes with it.
func testHangUp(t *testing.T, b *box, input io.Reader, mark string) {
	cmd := b.command("vm", "exec", "-i", "web", "--", "sh", "-c", "trap '' INT; echo ready; exec sleep 1000", mark)
	var seen lockedBuffer
	cmd.Stdin, cmd.Stdout = input, &seen
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen.until(t, "ready")
	id := b.job("web", mark).ID
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// The second of two leaves it; a third, while it is leaving, would end it on the spot.
	for left, wait := false, 300*time.Millisecond; !left; wait = 20*time.Second - wait {
		_ = cmd.Process.Signal(unix.SIGINT)
		select {
		case <-done:
			left = true
		case <-time.After(wait):
		}
	}
	runs := func(j guest.Job) bool { return j.ID == id && j.State == guest.JobRunning }
	for end := time.Now().Add(time.Minute); slices.ContainsFunc(b.jobs("web"), runs); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command goes on")
		}
	}
}
