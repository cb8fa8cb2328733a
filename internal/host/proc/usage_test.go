package proc

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseUsage(t *testing.T) {
	u, err := parseUsage([]byte("7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 3 0 4711 1000 25 184"))
	if want := (Usage{CPU: 2 * time.Second, Resident: 25 * int64(os.Getpagesize())}); err != nil || u != want {
		t.Errorf("%+v, %v, want %+v", u, err, want)
	}
	for _, stat := range []string{"", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194304 1 0 0 0 x 50 0 0 20 0 3 0 4711 1000 25 184"} {
		if u, err := parseUsage([]byte(stat)); err == nil {
			t.Errorf("%q: %+v", stat, u)
		}
	}
}

func TestUsageOf(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := UsageOf(id); err != nil || u.CPU <= 0 || u.Resident < 100<<10 {
		t.Errorf("%+v, %v", u, err)
	}
	for name, other := range map[string]Identity{"another start": {id.PID, id.StartTime + 1, id.BootID}, "another boot": {id.PID, id.StartTime, "x"}, "nobody": {}} {
		if u, err := UsageOf(other); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	_ = cmd.Process.Kill()
	_ = Wait(t.Context(), id) // a zombie now
	if u, err := UsageOf(id); !errors.Is(err, ErrGone) {
		t.Errorf("a zombie: %+v, %v", u, err)
	}
	_ = cmd.Wait()
	if u, err := UsageOf(id); !errors.Is(err, ErrGone) {
		t.Errorf("gone: %+v, %v", u, err)
	}
}
