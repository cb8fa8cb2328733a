package daemon_test

import (
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"banger/internal/host/proc"
)

// as is the place with programs of another version.
func (p place) as(version string) place {
	p.env = append(slices.Clip(slices.DeleteFunc(slices.Clone(p.env), func(e string) bool { return strings.HasPrefix(e, versionEnv+"=") })), versionEnv+"="+version)
	return p
}

// A newer daemon takes over from an older one, whether that was stopped or killed, with the VMs that run.
func TestANewerDaemonAdoptsWhatRuns(t *testing.T) {
	p := newStandInPlace(t).as("1.0")
	lives := p.hold(t)
	p.run(t, "banger", "vm", "create", "--name", "idle")
	before := p.show(t, "web")
	for i, end := range []func(){func() { p.run(t, "banger", "daemon", "stop") }, func() { p.killDaemon(t) }} {
		end()
		p = p.as(fmt.Sprintf("%d.0", i+2))
		p.answers(t, "web")
		lives("by version " + p.env[len(p.env)-1])
		after := p.show(t, "web")
		if after.Handles != before.Handles || !after.StartedAt.Equal(before.StartedAt) || after.State != "running" || len(p.list(t)) != 2 {
			t.Errorf("before %+v, after %+v", before, after)
		}
		var s struct{ Version string }
		if status(t, p, &s); s.Version != fmt.Sprintf("%d.0", i+2) {
			t.Errorf("version %q serves", s.Version)
		}
	}
	p.run(t, "banger", "vm", "delete", "web", "idle")
}

// An older daemon finds the database of a newer one: it says so, changes nothing, and leaves the VMs to the newer one.
func TestAnOlderDaemonRefusesANewerDatabase(t *testing.T) {
	p := newStandInPlace(t)
	lives := p.hold(t)
	p.run(t, "banger", "daemon", "stop")
	var have int
	version := func(change func(*sql.DB) error) {
		db, err := sql.Open("sqlite", "file:"+p.Database())
		must(t, err)
		must(t, change(db))
		must(t, db.Close())
	}
	version(func(db *sql.DB) error {
		if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
			return err
		}
		_, err := db.Exec(fmt.Sprintf("PRAGMA user_version = %d", have+1))
		return err
	})
	newer, err := os.ReadFile(p.Database())
	must(t, err)
	id := p.machines(t)
	for _, args := range [][]string{{"vm", "list"}, {"vm", "delete", "web"}, {"vm", "create"}} {
		says(t, p.fails(t, args...), "written by a newer banger", "nothing was changed")
	}
	if now, err := os.ReadFile(p.Database()); err != nil || string(now) != string(newer) {
		t.Errorf("the database was changed, %v", err)
	}
	lives("under an older daemon")
	if now := p.machines(t); !slices.Equal(now, id) || !proc.Alive(id[0]) {
		t.Errorf("machines %+v, were %+v", now, id)
	}
	version(func(db *sql.DB) error { _, err := db.Exec(fmt.Sprintf("PRAGMA user_version = %d", have)); return err })
	p.answers(t, "web")
	p.run(t, "banger", "vm", "delete", "web")
}
