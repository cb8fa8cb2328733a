package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/network/none"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// guestName is what the guest of a VM was told to be called.
func (d *daemon) guestName(ref string) string {
	d.t.Helper()
	c, err := d.Agent(d.t.Context(), ref)
	must(d.t, err)
	h, err := c.Hello(d.t.Context())
	must(d.t, err)
	return h.Hostname
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	w.shared = &sharing{Driver: none.New()}
	d := w.start()
	r, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true, Labels: map[string]string{"team": "a"}}, nil)
	must(t, err)
	before, err := d.Watch().Started(t.Context(), r.ID, nil)
	must(t, err)
	process, _ := w.host.ProcessOf(r.ID)

	now, told, err := d.Rename(t.Context(), "web", "mail")
	must(t, err)
	if !told || now.ID != before.ID || now.Name != "mail" || now.Runtime.DNSName != "mail.vm" || now.State != vm.StateRunning || now.Spec.Labels["team"] != "a" {
		t.Errorf("told %v, %+v", told, now)
	}
	if got := d.guestName("mail"); got != "mail" {
		t.Errorf("the guest is called %s", got)
	}
	if p, _ := w.host.ProcessOf(r.ID); p != process {
		t.Error("it was restarted")
	}
	if pinned, err := os.ReadFile(filepath.Join(now.Runtime.VMDir, "known_hosts")); err != nil || !strings.HasPrefix(string(pinned), "mail.vm ") {
		t.Errorf("pinned: %q, %v", pinned, err)
	}
	if a := d.SSHAccess(now); a.HostKeyAlias != "mail.vm" {
		t.Errorf("ssh takes it for %s", a.HostKeyAlias)
	}
	w.shared.mu.Lock()
	if p := w.shared.ports; len(p) != 1 || p[0].Name != "mail" { // of which the resolver makes NAME.vm
		t.Errorf("its network has %+v", p)
	}
	w.shared.mu.Unlock()
	if now.Runtime.GuestIP != before.Runtime.GuestIP {
		t.Errorf("its address was %s and is %s", before.Runtime.GuestIP, now.Runtime.GuestIP)
	}
	if _, err := d.Store.VMByRef(t.Context(), "web"); !isNotFound(err) {
		t.Errorf("under the old name: %v", err)
	}
	d.run("web", false) // which is free now
	if _, _, err := d.Rename(t.Context(), "mail", "web"); vm.CodeOf(err) != vm.CodeExists {
		t.Errorf("to a name that is taken: %v", err)
	}
	for _, bad := range []string{"", "Web", "a.b", "0123456789ab"} {
		if _, _, err := d.Rename(t.Context(), "mail", bad); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("to %q: %v", bad, err)
		}
	}
	if _, _, err := d.Rename(t.Context(), "nobody", "somebody"); !isNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	if now, told, err := d.Rename(t.Context(), "mail", "mail"); err != nil || !told || now.Name != "mail" {
		t.Errorf("to the name it has: %s, told %v, %v", now.Name, told, err)
	}
	d.kill()
	d = w.start()
	if got := d.guestName("mail"); got != "mail" {
		t.Errorf("after a restart of the daemon the guest is called %s", got)
	}
}

func TestRenameWhileStopped(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	_, err := d.Create(t.Context(), api.CreateRequest{Name: "web"}, nil)
	must(t, err)
	now, told, err := d.Rename(t.Context(), "web", "mail")
	if err != nil || told || now.Name != "mail" || now.State != vm.StateStopped {
		t.Fatalf("%+v, told %v, %v", now, told, err)
	}
	_, err = d.Start(t.Context(), "mail")
	must(t, err)
	if got := d.guestName("mail"); got != "mail" {
		t.Errorf("the guest is called %s", got)
	}
	_, err = d.Store.SetWant(t.Context(), now.ID, vm.WantGone, vm.StateRemoving)
	must(t, err)
	if _, _, err := d.Rename(t.Context(), "mail", "post"); vm.CodeOf(err) != vm.CodeConflict {
		t.Errorf("of one that goes: %v", err)
	}
}

// A rename that comes while a guest is being told its name does not get lost.
func TestRenameWhileItStarts(t *testing.T) {
	w := newWorld(t)
	reached, goOn := make(chan struct{}), make(chan struct{})
	w.host.Rule(fake.Rules{Configure: func(_ vmm.Config, c fake.GuestConfigure) error {
		if c.Hostname == "web" {
			reached <- struct{}{}
			<-goOn
		}
		return nil
	}})
	d := w.start()
	_, err := d.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil)
	must(t, err)
	<-reached
	renamed := make(chan bool, 1)
	go func() {
		_, told, err := d.Rename(t.Context(), "web", "mail")
		renamed <- told && err == nil
	}()
	d.named("mail")
	close(goOn)
	if !<-renamed || d.guestName("mail") != "mail" {
		t.Error("the guest was not told")
	}
}

// named waits until a VM has this name.
func (d *daemon) named(name string) {
	d.t.Helper()
	events, err := d.Events(d.t.Context(), "")
	must(d.t, err)
	for {
		if _, err := d.Store.VMByRef(d.t.Context(), name); err == nil {
			return
		}
		<-events
	}
}
