package act

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

type recorder struct {
	labels []string
	refuse string
}

var errRefused = errors.New("refused")

func (r *recorder) Pass(label string) error {
	r.labels = append(r.labels, label)
	if label == r.refuse {
		return errRefused
	}
	return nil
}

func TestPoints(t *testing.T) {
	r := &recorder{refuse: "start:tap:before"}
	ctx := In(Watch(t.Context(), r), "start")
	done := 0
	f := func() error { done++; return nil }
	if err := errors.Join(Do(ctx, "dm", f), Record(ctx, "handles", f)); err != nil || done != 2 {
		t.Errorf("%v after %d acts", err, done)
	}
	if err := Do(ctx, "tap", f); !errors.Is(err, errRefused) || done != 2 {
		t.Errorf("a refused act was done, or not told: %v, %d", err, done)
	}
	boom := errors.New("boom")
	if err := Do(In(ctx, "stop"), "loop", func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("an act's own error came as %v", err)
	}
	_ = Do(Watch(t.Context(), r), "x", f)
	want := []string{"start:dm:before", "start:dm:made", "start:handles:before", "start:handles:recorded", "start:tap:before", "stop:loop:before", "unnamed:x:before", "unnamed:x:made"}
	if !slices.Equal(r.labels, want) {
		t.Errorf("passed %q, want %q", r.labels, want)
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, at := range []string{"start", "start:dm", "start:dm:after", "start:dm:made#0", "start:dm:made#x", "start:dm:made#", ":dm:made"} {
		if err := Arm(func(name string) string { return map[string]string{CrashEnv: at}[name] }); err == nil || !strings.Contains(err.Error(), CrashEnv) {
			t.Errorf("%s: %v", at, err)
		}
	}
	if err := Arm(func(string) string { return "" }); err != nil || process.Load() != nil {
		t.Errorf("armed by nothing: %v", err)
	}
	if err := Arm(func(name string) string {
		return map[string]string{TraceEnv: filepath.Join(t.TempDir(), "no", "such")}[name]
	}); err == nil {
		t.Error("a trace that cannot be written is no error")
	}
}

// TestKilled is the parent of the process that kills itself: this test again, with an argument in its environment.
func TestKilled(t *testing.T) {
	const child = "BANGER_ACT_TEST_DIR"
	if dir := os.Getenv(child); dir != "" {
		if err := Arm(os.Getenv); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.WriteFile(filepath.Join(dir, "deferred"), nil, 0o600) }()
		for range 3 {
			_ = Do(In(context.Background(), "life"), "file", func() error {
				f, err := os.OpenFile(filepath.Join(dir, "acts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				_, err = f.WriteString("x")
				return errors.Join(err, f.Close())
			})
		}
		return
	}
	for at, acts := range map[string]string{"life:file:before": "", "life:file:made": "x", "life:file:made#2": "xx", "life:file:before#3": "xx", "other:file:made": "xxx"} {
		dir := t.TempDir()
		trace := filepath.Join(dir, "trace")
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), child+"="+dir, CrashEnv+"="+at, TraceEnv+"="+trace)
		out, err := cmd.CombinedOutput()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if killed := status.Signaled() && status.Signal() == syscall.SIGKILL; killed == (acts == "xxx") {
			t.Errorf("%s: %v %s", at, err, out)
		}
		got, _ := os.ReadFile(filepath.Join(dir, "acts"))
		_, derr := os.Stat(filepath.Join(dir, "deferred"))
		if string(got) != acts || (derr == nil) != (acts == "xxx") {
			t.Errorf("%s: did %q, and deferred functions ran: %v", at, got, derr == nil)
		}
		lines, _ := os.ReadFile(trace)
		label, _, _ := strings.Cut(at, "#")
		if last := strings.TrimSpace(string(lines)); acts != "xxx" && !strings.HasSuffix(last, label) {
			t.Errorf("%s: the trace ends with %q", at, last)
		}
	}
}
