package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/inventory"
	"banger/internal/network"
	"banger/internal/paths"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
)

type net struct {
	network.Driver // the rest is never called
	name           string
	err            error
}

func (n net) Name() string                { return n.name }
func (n net) Probe(context.Context) error { return n.err }

func TestNetworks(t *testing.T) {
	d := New(Config{Nets: []network.Driver{
		net{name: "user"}, net{name: "bridge", err: vm.Errorf(vm.CodeMissing, "it takes root").WithHint("be root")},
	}})
	want := []api.Problem{{Code: "network-unused", Severity: "info", Text: "network bridge cannot be used: it takes root", Hint: "be root"}}
	if got := d.networks(t.Context()); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestCgroup(t *testing.T) {
	if got := New(Config{}).cgroup(0); len(got) != 0 {
		t.Errorf("with one: %+v", got)
	}
	for uid, hint := range map[int]string{0: "mount -t cgroup2", 1000: "loginctl enable-linger"} {
		got := New(Config{NoCgroup: true}).cgroup(uid)
		if len(got) != 1 || got[0].Code != "no-cgroup" || got[0].Severity != "info" || !strings.Contains(got[0].Hint, hint) {
			t.Errorf("as user %d: %+v", uid, got)
		}
	}
}

func TestSpace(t *testing.T) {
	none := making{}
	both := making{what: "a kernel and an image", takes: kernelTakes + imageTakes}
	for _, c := range []struct {
		free           uint64
		first          making
		code, severity string
		text           string
	}{
		{tooLow - 1, none, "space-out", "error", "127 MiB"}, {tooLow, none, "space-low", "warning", "128 MiB are free in /srv"},
		{enough - 1, none, "space-low", "warning", "2047 MiB"}, {enough, none, "", "", ""},
		{tooLow - 1, both, "space-out", "error", "127 MiB"},
		{tooLow + both.takes - 1, both, "space-low", "warning", "the next 'banger vm run' takes some 928, since it has to make a kernel and an image"},
		{tooLow + both.takes, both, "space-low", "warning", "928 MiB are free in /srv"}, {enough, both, "", "", ""},
	} {
		got := spaceOf("/srv", c.free, c.first)
		if c.code == "" {
			if len(got) != 0 {
				t.Errorf("%d bytes: %+v", c.free, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Code != c.code || got[0].Severity != c.severity || !strings.Contains(got[0].Text, "/srv") || !strings.Contains(got[0].Text, c.text) ||
			strings.Contains(got[0].Text, "vm run") != strings.Contains(c.text, "vm run") || !strings.Contains(got[0].Hint, "BANGER_ROOT=DIR") {
			t.Errorf("%d bytes: %+v", c.free, got)
		}
	}
	if got := New(Config{Paths: paths.Under(t.TempDir()), Store: records{}}).space(t.Context()); len(got) > 1 {
		t.Errorf("one file system is told of once: %+v", got)
	}
}

// What is made for the first VM is made where the state is, and not where the cache is.
func TestSpaceOfASmallDisk(t *testing.T) {
	testhost.Need(t, testhost.Root)
	p := paths.Under(t.TempDir())
	for _, dir := range []string{p.State, p.Cache} { // the second may lie in the first
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=250m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
	got := New(Config{Paths: p, Store: records{}}).space(t.Context())
	if !slices.Equal(codes(got), []string{"space-low", "space-low"}) {
		t.Fatalf("%+v", got)
	}
	for i, dir := range []string{p.State, p.Cache} {
		if !strings.Contains(got[i].Text, "are free in "+dir) || strings.Contains(got[i].Text, "an image") != (dir == p.State) {
			t.Errorf("%+v", got[i])
		}
	}
}

// A host that has had no VM yet needs room for what the first one stands on.
func TestFirstRun(t *testing.T) {
	image, kernel := []vm.Image{{}}, []vm.Kernel{{}}
	for _, c := range []struct {
		store records
		want  making
	}{
		{records{}, making{"a kernel and an image", kernelTakes + imageTakes}},
		{records{kernels: kernel}, making{"an image", imageTakes}},
		{records{images: image}, making{"a kernel", kernelTakes}},
		{records{images: image, kernels: kernel}, making{}},
		{records{err: errors.New("locked")}, making{}}, // what there is nobody knows, and that is told
	} {
		if got := New(Config{Store: c.store}).firstRun(t.Context()); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.store, got, c.want)
		}
	}
}

// Programs that lie where an ordinary user's PATH does not lead are there all the same.
func TestInstalled(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "depmod"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "/nowhere")
	if !installed("depmod", []string{"", dir + "/"}) {
		t.Error("it is not found beside PATH")
	}
	if installed("depmod", []string{""}) {
		t.Error("it is found in PATH, where it is not")
	}
}

// What keeps images from being built is told once: the program that is missing, or what the trial says.
func TestTools(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	have := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := New(Config{CanBuild: func(context.Context) error { return vm.Errorf(vm.CodeMissing, "no ids").WithHint("usermod") }})
	for _, name := range []string{"mkfs.ext4", "depmod", "ssh"} {
		have(name)
	}
	if _, err := os.Stat("/usr/sbin/mmdebstrap"); err != nil {
		want := []api.Problem{{Code: "tool-missing", Severity: "warning", Text: "mmdebstrap is not installed: images cannot be built", Hint: "apt-get install mmdebstrap"}}
		if got := d.tools(t.Context()); !slices.Equal(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	have("mmdebstrap")
	want := []api.Problem{{Code: "image-build", Severity: "warning", Text: "images cannot be built: no ids", Hint: "usermod"}}
	if got := d.tools(t.Context()); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	d.CanBuild = func(context.Context) error { return nil }
	if got := d.tools(t.Context()); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSockets(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := there + "-not"
	record := func(name string, state vm.State, api, agent string) vm.VMRecord {
		return vm.VMRecord{Name: name, State: state, Runtime: vm.VMRuntime{APISockPath: api, VSockPath: agent}}
	}
	got := sockets([]vm.VMRecord{
		record("web", vm.StateRunning, there, there), record("db", vm.StateRunning, there, gone), record("ci", vm.StateRunning, gone, gone),
		record("old", vm.StateStopped, gone, gone), record("new", vm.StateStarting, gone, gone),
	})
	if !slices.Equal(codes(got), []string{"socket-gone", "socket-gone"}) {
		t.Fatalf("%+v", got)
	}
	if p := got[0]; p.Severity != "warning" || !strings.Contains(p.Text, "VM db runs") || !strings.Contains(p.Text, gone) || p.Hint != "banger vm restart db makes it anew" {
		t.Errorf("%+v", p)
	}
}

// Each check is asked, and each problem says what it is and how bad.
func TestCheckAsksAll(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := Config{
		Paths: paths.Under(t.TempDir()), Store: records{}, NoCgroup: true,
		VMMs:      []vmm.Driver{driver{probe: vmm.Probe{Usable: true, Accel: "tcg", Why: "no KVM", Hint: "switch it on"}}},
		Nets:      []network.Driver{net{name: "bridge", err: errors.New("no")}},
		Unjailed:  func(context.Context) ([]string, error) { return []string{"web"}, errors.New("no /proc") },
		Inventory: func(context.Context) ([]inventory.Finding, error) { return nil, errors.New("no light") },
	}
	problems := taking(c, false, nil).Check(t.Context())
	for _, want := range []string{"emulated", "auto", "unjailed", "jails-unknown", "disk-broken", "network-unused", "no-cgroup", "tool-missing", "no-image", "orphans-unknown"} {
		if !slices.Contains(codes(problems), want) {
			t.Errorf("%s is not told: %q", want, codes(problems))
		}
	}
	for _, p := range problems {
		if p.Code == "" || p.Text == "" || !slices.Contains([]string{severityError, severityWarning, severityInfo}, p.Severity) {
			t.Errorf("%+v", p)
		}
		if p.Hint == "" && p.Severity != severityInfo {
			t.Errorf("nothing to do is said of %+v", p)
		}
	}
}
