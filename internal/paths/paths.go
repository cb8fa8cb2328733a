// Package paths knows where everything of one daemon lies on disk (docs/FILES.md lists it). It makes nothing but these
// directories.
package paths

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"banger/internal/act"
	"banger/internal/vm"
)

// MaxSocket is the longest path a unix socket can have (sun_path is 108 bytes with its end).
const MaxSocket = 107

// Paths are the directories of one daemon. All absolute.
type Paths struct {
	Root   string // BANGER_ROOT, or State without one: what the user knows this daemon by
	State  string // durable: database, VM directories, images, kernels
	Run    string // sockets; void after a reboot
	Cache  string // can be deleted while no daemon runs
	Config string // config.toml; need not exist
}

// Default finds the directories: BANGER_ROOT, else root's system directories, else the XDG ones.
func Default() (Paths, error) {
	if root := os.Getenv("BANGER_ROOT"); root != "" {
		root, err := filepath.Abs(root)
		if err != nil {
			return Paths{}, fmt.Errorf("resolve BANGER_ROOT: %w", err)
		}
		return Under(root), nil
	}
	return System()
}

// System finds them without BANGER_ROOT: those of the user's one daemon that nobody had to name.
func System() (Paths, error) {
	if os.Geteuid() == 0 {
		const state = "/var/lib/banger"
		return Paths{Root: state, State: state, Run: "/run/banger", Cache: "/var/cache/banger", Config: "/etc/banger/config.toml"}, nil
	}
	return user()
}

// user are the directories of an ordinary user.
func user() (Paths, error) {
	home, lacking := os.Getenv("HOME"), ""
	xdg := func(env, fallback string) string {
		if d := os.Getenv(env); filepath.IsAbs(d) {
			return filepath.Join(d, "banger")
		}
		if !filepath.IsAbs(home) {
			lacking = env
		}
		return filepath.Join(home, fallback, "banger")
	}
	p := Paths{
		State:  xdg("XDG_STATE_HOME", ".local/state"),
		Cache:  xdg("XDG_CACHE_HOME", ".cache"),
		Config: filepath.Join(xdg("XDG_CONFIG_HOME", ".config"), "config.toml"),
	}
	if lacking != "" {
		return Paths{}, vm.Errorf(vm.CodeInvalid, "find the daemon's directories: neither HOME (%q) nor %s is an absolute path", home, lacking).
			WithHint("set HOME; or BANGER_ROOT=DIR puts everything under a directory of yours")
	}
	p.Root = p.State
	// Not XDG_RUNTIME_DIR: it goes with the last login, and the VMs' sockets with it; VMs stay.
	p.Run = filepath.Join(p.State, "run")
	return p, nil
}

// Under puts everything below one directory.
func Under(root string) Paths {
	return Paths{Root: root, State: root, Run: filepath.Join(root, "run"), Cache: filepath.Join(root, "cache"), Config: filepath.Join(root, "config.toml")}
}

func (p Paths) Socket() string { return filepath.Join(p.Run, "bangerd.sock") }

// DaemonLock lies beside what it guards: wherever a daemon keeps its sockets, one state has one daemon.
func (p Paths) DaemonLock() string    { return filepath.Join(p.State, "bangerd.lock") }
func (p Paths) StartLock() string     { return filepath.Join(p.Run, "start.lock") }
func (p Paths) Database() string      { return filepath.Join(p.State, "banger.db") }
func (p Paths) DaemonLog() string     { return filepath.Join(p.State, "bangerd.log") }
func (p Paths) VMs() string           { return filepath.Join(p.State, "vms") }
func (p Paths) Images() string        { return filepath.Join(p.State, "images") }
func (p Paths) Kernels() string       { return filepath.Join(p.State, "kernels") }
func (p Paths) VMMs() string          { return filepath.Join(p.State, "vmms") }
func (p Paths) Initramfs() string     { return filepath.Join(p.Cache, "initramfs") }
func (p Paths) SSHKey() string        { return filepath.Join(p.State, "ssh", "id_ed25519") }
func (p Paths) VMDir(id vm.ID) string { return filepath.Join(p.VMs(), string(id)) }

// VMRun is where a VM's sockets lie. It is short: a socket path has 107 bytes.
func (p Paths) VMRun(id vm.ID) string { return filepath.Join(p.Run, string(id)) }

// Make makes the directories that only their owner may look into. One that is there is left as it is, and refused when
// others could put something into it: BANGER_ROOT=/tmp is a slip, not a wish to close /tmp. Nothing is put into a
// directory before all have passed.
func (p Paths) Make(ctx context.Context) error {
	for _, dir := range []string{p.State, p.Run, p.Cache, p.VMs()} {
		if err := private(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

func private(ctx context.Context, dir string) error {
	if err := act.Do(ctx, "directory", func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return vm.Errorf(vm.CodeMissing, "make the daemon's directory: %w", err).
			WithHint("BANGER_ROOT=DIR puts everything under a directory of yours")
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the daemon's directory: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return vm.Errorf(vm.CodeInvalid, "directory %s belongs to user %d, not to this daemon's", dir, st.Uid).WithHint("use a BANGER_ROOT of your own")
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return vm.Errorf(vm.CodeInvalid, "directory %s may be written by others (mode %#o)", dir, fi.Mode().Perm()).
			WithHint("use a BANGER_ROOT of your own, or: chmod go-w %s", dir)
	}
	return nil
}

// CheckSockets refuses a root that is too deep for the sockets below it.
func (p Paths) CheckSockets() error {
	longest := filepath.Join(p.VMRun("000000000000"), "agent.sock")
	if s := p.Socket(); len(s) > len(longest) {
		longest = s
	}
	if len(longest) > MaxSocket {
		return vm.Errorf(vm.CodeInvalid, "socket path %s has %d bytes, unix sockets take %d", longest, len(longest), MaxSocket).
			WithHint("use a shorter BANGER_ROOT (at most %d bytes)", MaxSocket-(len(longest)-len(p.Root)))
	}
	return nil
}
