package daemon_test

import (
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
)

// TestAClockThatIsSetBack has a daemon find what one left whose clock was an hour ahead of its own: every time in the database
// and of each file lies in the future. That is all that it can see of a clock that was set back meanwhile.
func TestAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	p := newStandInPlace(t)
	lives := p.hold(t)
	for name, policy := range map[string]string{"again": vm.RestartAlways, "off": vm.RestartOnFailure, "going": vm.RestartNo, "old": vm.RestartNo} {
		p.run(t, "banger", "vm", "create", "--name", name, "--restart", policy)
		if name != "old" {
			p.run(t, "banger", "vm", "start", name)
		}
	}
	before, off := p.show(t, "web"), p.show(t, "off")
	dies := []proc.Identity{p.machineOf(t, off.VMRecord), p.machineOf(t, p.show(t, "again").VMRecord), p.machineOf(t, p.show(t, "going").VMRecord)}
	p.killDaemon(t)
	for _, id := range dies {
		must(t, proc.Signal(id, unix.SIGKILL))
		must(t, proc.Wait(t.Context(), id))
	}
	ahead(t, p)
	// The guest of "off" powered off after the clock was set back.
	f, err := os.OpenFile(off.Runtime.LogPath, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("[    9.000000] reboot: Power down\n")
	must(t, err)
	must(t, f.Close())
	must(t, os.Chtimes(off.Runtime.LogPath, time.Now(), time.Now()))

	p.answers(t, "web")
	lives("after the clock was set back")
	if after := p.show(t, "web"); after.Handles != before.Handles {
		t.Errorf("handles %+v, after it %+v", before.Handles, after.Handles)
	}
	// What waited for its time waits no longer than it would have: not an hour.
	p.run(t, "banger", "vm", "wait", "again", "--for", "ready", "--timeout", "1m")
	p.answers(t, "again")
	_ = p.command(t, "banger", "vm", "wait", "going", "--for", "gone", "--timeout", "1m").Run() // it fails where it has gone already
	if r := p.show(t, "off"); r.Want != vm.WantStopped {                                        // its policy restarts what failed
		t.Errorf("it powered off in good order: want %s, %s (%s)", r.Want, r.State, r.Runtime.LastError)
	}
	p.run(t, "banger", "vm", "start", "old")
	p.answers(t, "old")
	p.run(t, "banger", "vm", "create", "--name", "new")
	if all := p.list(t); len(all) != 5 {
		t.Errorf("there are %d VMs, want 5", len(all))
	}
	p.run(t, "banger", "vm", "set", "--restart", "no", "again")
	// An end in the new time is told with its reason.
	must(t, proc.Signal(p.machineOf(t, p.show(t, "web").VMRecord), unix.SIGKILL))
	p.run(t, "banger", "vm", "wait", "web", "--for", "stopped", "--timeout", "1m")
	if r := p.show(t, "web"); r.Runtime.LastError == "" || r.Runtime.LastErrorAt.After(time.Now()) {
		t.Errorf("it was killed: %+v", r.Runtime)
	}
	p.run(t, "banger", "vm", "delete", "--all", "--yes")
	p.run(t, "banger", "doctor", "--leaks") // orphans are an error
	if left := p.machines(t); len(left) > 0 || len(p.list(t)) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// ahead puts everything that a daemon left an hour into the future. "again" waits for a restart then, and "going" for the next
// try of its removal.
func ahead(t *testing.T, p place) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+p.Database()+"?_txlock=immediate")
	must(t, err)
	defer func() { _ = db.Close() }()
	const in = `strftime('%Y-%m-%dT%H:%M:%fZ', `
	for _, change := range []string{
		`UPDATE vms SET created_at = ` + in + `created_at, '+1 hour'), started_at = iif(started_at > '2000', ` + in + `started_at, '+1 hour'), started_at)`,
		`UPDATE images SET created_at = ` + in + `created_at, '+1 hour')`,
		`UPDATE kernels SET created_at = ` + in + `created_at, '+1 hour')`,
		`UPDATE vms SET state = 'starting', runtime = json_set(runtime, '$.restarts', 4, '$.restart_at', ` + in + `'now', '+1 hour')) WHERE name = 'again'`,
		`UPDATE vms SET want = 'gone', state = 'removing', generation = generation + 1,
			runtime = json_set(runtime, '$.attempts', 3, '$.last_error', 'busy', '$.last_error_at', ` + in + `'now', '+1 hour'), '$.retry_at', ` + in + `'now', '+1 hour')) WHERE name = 'going'`,
	} {
		_, err := db.ExecContext(t.Context(), change)
		must(t, err)
	}
	must(t, db.Close())
	later := time.Now().Add(time.Hour)
	must(t, filepath.WalkDir(p.Root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, later, later)
	}))
}
