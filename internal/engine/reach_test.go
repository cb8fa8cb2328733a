package engine

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// Somebody tidied up /run while no daemon ran: the machine lives, and whoever wants its guest is told at once why that
// cannot be had, and what helps.
func TestAdoptWithoutSockets(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	r := d.run("web", false)
	d.kill()
	must(t, os.RemoveAll(w.paths.Run))
	d = w.start()
	_, err := d.Agent(t.Context(), "web")
	if vm.CodeOf(err) != vm.CodeUnavailable || !strings.Contains(err.Error(), r.Runtime.VSockPath+" was removed") || !strings.Contains(vm.HintOf(err), "vm restart web") {
		t.Errorf("%v, hint %q", err, vm.HintOf(err))
	}
	if o := d.Observe(r); !o.Alive || o.Ready {
		t.Errorf("%+v", o)
	}
	_, err = d.Restart(t.Context(), "web", false, 0, nil)
	must(t, err)
	if _, err := d.Agent(t.Context(), "web"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// Whoever needs a guest gets it as soon as it is configured, also while the record cannot be written.
func TestAgentBeforeTheRecord(t *testing.T) {
	w := newWorld(t)
	other, err := sql.Open("sqlite", "file:"+w.paths.Database()+"?_txlock=immediate")
	must(t, err)
	defer func() { must(t, other.Close()) }()
	var writer *sql.Tx
	locked := make(chan struct{})
	w.host.Rule(fake.Rules{Configure: func(vmm.Config, fake.GuestConfigure) (err error) {
		defer close(locked)
		writer, err = other.BeginTx(context.Background(), nil)
		return err
	}})
	d := w.start()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	<-locked
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // the daemon waits for the lock longer
	defer cancel()
	if _, err := d.Agent(ctx, "web"); err != nil {
		t.Error(err)
	}
	if now, err := d.Store.VM(t.Context(), r.ID); err != nil || now.Runtime.State != vm.StateStarting {
		t.Errorf("%s, %v", now.Runtime.State, err)
	}
	must(t, writer.Rollback())
	_, err = d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
}
