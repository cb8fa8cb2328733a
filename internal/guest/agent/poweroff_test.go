package agent

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/guest"
)

// slow is a machine whose disks take until they are allowed to be done.
type slow struct {
	recorder
	settling, settled chan struct{}
}

func (s *slow) settleDisks() { close(s.settling); <-s.settled }

// While a machine ends it tells what it is at, so that nobody pulls the plug on its disks.
func TestPowerOffTellsHowFarItIs(t *testing.T) {
	s, socket := serveAgent(t)
	r := &slow{recorder{ended: make(chan struct{})}, make(chan struct{}), make(chan struct{})}
	s.system = r
	client := clientOf(socket)
	ending := func() string {
		t.Helper()
		resp, err := client.Get("http://guest" + guest.PathHello)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var h guest.Hello
		if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
			t.Fatal(err)
		}
		return h.Ending
	}
	if got := ending(); got != "" {
		t.Errorf("a running machine is at %q", got)
	}
	resp, err := client.Post("http://guest"+guest.PathPowerOff, "application/json", strings.NewReader(`{"grace_ms":500}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := ending(); got != guest.EndingProcesses || resp.StatusCode != http.StatusNoContent {
		t.Errorf("told to end (%s) it is at %q", resp.Status, got)
	}
	close(s.reaper.none) // the last process ends
	select {
	case <-r.settling:
	case <-time.After(5 * time.Second):
		t.Fatal("it does not come to its disks")
	}
	if got := ending(); got != guest.EndingDisks {
		t.Errorf("at its disks it is at %q", got)
	}
	close(r.settled)
	select {
	case <-r.ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the machine does not end")
	}
}

func TestRestartAtEnd(t *testing.T) {
	dir := t.TempDir()
	init, systemd, units := filepath.Join(dir, "init"), filepath.Join(dir, "systemd"), filepath.Join(dir, "run", "units")
	must(t, os.WriteFile(systemd, nil, 0o755), os.WriteFile(filepath.Join(dir, "other"), nil, 0o755), os.Symlink("other", init))
	must(t, restartAtEnd(init, units))
	if _, err := os.Lstat(filepath.Dir(units)); err == nil {
		t.Error("another init is told that it is systemd")
	}
	must(t, os.Remove(init), os.Symlink("systemd", init), restartAtEnd(init, units))
	for _, target := range []string{"poweroff.target", "halt.target"} {
		if to, err := os.Readlink(filepath.Join(units, target)); filepath.Base(to) != "reboot.target" {
			t.Errorf("%s: %q, %v", target, to, err)
		}
	}
}
