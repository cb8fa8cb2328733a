package paths

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vm"
)

func TestRootIsolates(t *testing.T) {
	t.Setenv("BANGER_ROOT", "/r")
	p, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{p.State, p.Run, p.Cache, p.Config, p.Socket(), p.DaemonLock(), p.Database(), p.SSHKey(), p.VMDir("0123456789ab"), p.VMRun("0123456789ab")} {
		if path != "/r" && !strings.HasPrefix(path, "/r/") {
			t.Errorf("%s is not below the root", path)
		}
	}
	t.Setenv("BANGER_ROOT", "relative")
	if p, err = Default(); err != nil || !filepath.IsAbs(p.Root) {
		t.Errorf("%q, %v", p.Root, err)
	}
}

// One state has one daemon and one place for its sockets, with or without a login session around it.
func TestAUsersDirectoriesDoNotDependOnTheSession(t *testing.T) {
	for _, env := range []string{"BANGER_ROOT", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(env, "")
	}
	t.Setenv("HOME", "/home/u")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	with, err := user()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	without, err := user()
	if err != nil || with != without || with.State != "/home/u/.local/state/banger" {
		t.Errorf("%+v and %+v, %v", with, without, err)
	}
}

// Without a HOME, as in a service, the XDG directories are enough. What is not known without it is an error, and not taken from
// the directory that happens to be the current one.
func TestAUserWithoutAHome(t *testing.T) {
	t.Setenv("BANGER_ROOT", "")
	xdg := []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
	for _, home := range []string{"", "relative"} {
		t.Setenv("HOME", home)
		for _, env := range xdg {
			t.Setenv(env, "/x/"+env)
		}
		p, err := user()
		if err != nil || p.State != "/x/XDG_STATE_HOME/banger" || p.Cache != "/x/XDG_CACHE_HOME/banger" || p.Config != "/x/XDG_CONFIG_HOME/banger/config.toml" {
			t.Errorf("HOME=%s: %+v, %v", home, p, err)
		}
		for _, env := range xdg {
			t.Setenv(env, "")
			if p, err := user(); vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(vm.HintOf(err), "BANGER_ROOT") {
				t.Errorf("HOME=%s without %s: %+v, %v", home, env, p, err)
			}
			t.Setenv(env, "/x/"+env)
		}
	}
}

func TestCheckSockets(t *testing.T) {
	fits := Under("/" + strings.Repeat("x", MaxSocket-len("/run/000000000000/agent.sock")-1))
	if err := fits.CheckSockets(); err != nil {
		t.Error(err)
	}
	err := Under(fits.Root + "x").CheckSockets()
	if vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), "107") || vm.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// A directory that others may write to, or that is somebody else's, is refused before anything is put into it.
func TestMake(t *testing.T) {
	p := Under(filepath.Join(t.TempDir(), "root"))
	for range 2 {
		if err := p.Make(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{p.State, p.Run, p.Cache, p.VMs()} {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi, err)
		}
	}
	shared := Under(filepath.Join(t.TempDir(), "shared"))
	if err := os.Mkdir(shared.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared.Root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := shared.Make(t.Context()); vm.CodeOf(err) != vm.CodeInvalid || vm.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(shared.Root); err != nil || len(entries) > 0 {
		t.Errorf("made %v, %v", entries, err)
	}
}
