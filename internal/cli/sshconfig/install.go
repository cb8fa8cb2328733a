package sshconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"

	"banger/internal/vm"
)

// Place is where a user's ssh client looks.
type Place struct{ dir string }

// In is the place in a home directory.
func In(home string) Place { return Place{filepath.Join(home, ".ssh")} }

// Config is the user's own configuration.
func (p Place) Config() string { return filepath.Join(p.dir, "config") }

// File is ours, which Config includes.
func (p Place) File() string { return filepath.Join(p.dir, "banger.conf") }

// Installed says whether ssh reads our configuration there.
func (p Place) Installed() bool {
	_, err := os.Stat(p.File())
	return err == nil
}

// Install writes text, which Text has made, to File and includes that at the top of Config: an Include below a Host line
// would hold for that host only. Of Config nothing else changes, nor its mode, its owner, or that it is a symbolic link.
// changed is false when all was there.
func (p Place) Install(text string) (changed bool, err error) {
	if err := p.own(); err != nil {
		return false, err
	}
	switch err := os.Mkdir(p.dir, 0o700); {
	case err == nil:
		defer func() {
			if !changed { // what is in it by now stays
				_ = os.Remove(p.dir)
			}
		}()
	case !errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("make ssh's directory: %w", err)
	}
	c, err := p.read()
	if err != nil {
		return false, err
	}
	old, err := p.ours()
	if err != nil {
		return false, err
	}
	if old != text { // before it is included
		if err := p.put(text); err != nil {
			return false, err
		}
		changed = true
	}
	want := block(p.File(), !c.exists || c.created) + c.rest
	if want == c.text {
		return changed, nil
	}
	if err := c.write(want); err != nil {
		if changed {
			err = errors.Join(err, p.put(old)) // nobody includes it
		}
		return false, err
	}
	return true, nil
}

// put writes File; an empty text removes it.
func (p Place) put(text string) error {
	if text == "" {
		if err := os.Remove(p.File()); err != nil {
			return fmt.Errorf("remove the ssh configuration for VMs: %w", err)
		}
		return nil
	}
	if err := renameio.WriteFile(p.File(), []byte(text), 0o600, renameio.WithTempDir(p.dir), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write the ssh configuration for VMs: %w", err)
	}
	return nil
}

// Uninstall takes away what Install did: Config is as if it had never been. removed is false when there was nothing of it.
func (p Place) Uninstall() (removed bool, err error) {
	if _, err := os.Lstat(p.dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := p.own(); err != nil {
		return false, err
	}
	c, err := p.read()
	if err != nil {
		return false, err
	}
	old, err := p.ours()
	if err != nil {
		return false, err
	}
	switch {
	case c.block == "":
	case c.created && c.rest == "":
		err = os.Remove(c.path)
	default:
		err = c.write(c.rest)
	}
	if err != nil {
		return false, fmt.Errorf("remove banger's block: %w", err)
	}
	if old == "" {
		return c.block != "", nil
	}
	return true, p.put("")
}

// own refuses another user's home, as under sudo: ssh ends on a configuration that it may not read.
func (p Place) own() error {
	home := filepath.Dir(p.dir)
	fi, err := os.Stat(home)
	if err != nil {
		return fmt.Errorf("find the home directory: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return vm.Errorf(vm.CodeInvalid, "the home directory %s belongs to user %d, this is user %d", home, st.Uid, os.Geteuid()).
			WithHint("run it as that user, or with HOME set to a directory of this one")
	}
	return nil
}

// ours reads File; empty = there is none. One that is not ours is refused.
func (p Place) ours() (string, error) {
	b, err := os.ReadFile(p.File())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for an earlier ssh configuration for VMs: %w", err)
	}
	if !strings.HasPrefix(string(b), header+"\n") {
		return "", vm.Errorf(vm.CodeConflict, "%s is not banger's: it lacks its first line", p.File()).WithHint("move it away")
	}
	return string(b), nil
}

// config is the user's configuration.
type config struct {
	found
	path   string // where it really lies, beyond symbolic links
	text   string
	exists bool
	info   fs.FileInfo
}

func (p Place) read() (c config, err error) {
	if c.path, err = follow(p.Config()); err != nil {
		return c, err
	}
	b, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		c.info, err = os.Stat(c.path)
	}
	if err != nil {
		return c, fmt.Errorf("read the ssh configuration: %w", err)
	}
	c.exists, c.text = true, string(b)
	if c.found, err = look(c.text); err != nil {
		return c, vm.Errorf(vm.CodeConflict, "%s: %w", p.Config(), err).WithHint("remove banger's lines by hand, then run it again")
	}
	return c, nil
}

// write puts text in the place of the configuration, in one step.
func (c config) write(text string) error {
	mode := fs.FileMode(0o600)
	if c.exists {
		mode = c.info.Mode().Perm()
	}
	t, err := renameio.NewPendingFile(c.path, renameio.WithTempDir(filepath.Dir(c.path)), renameio.WithPermissions(mode), renameio.IgnoreUmask())
	if err == nil {
		defer func() { _ = t.Cleanup() }()
		_, err = t.WriteString(text)
	}
	if err == nil && c.exists {
		err = sameOwner(t.File, c.info)
	}
	if err == nil {
		err = t.CloseAtomicallyReplace()
	}
	if err != nil {
		return vm.Errorf(vm.CodeOf(err), "write the ssh configuration %s: %w", c.path, err).
			WithHint("where another program makes that file, put the output of 'banger ssh-config' into it by that")
	}
	return nil
}

// sameOwner gives a file the owner of another. Root alone can, and need, do that.
func sameOwner(f *os.File, of fs.FileInfo) error {
	want, ok := of.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := now.Sys().(*syscall.Stat_t); ok && st.Uid == want.Uid && st.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// mostLinks is how many symbolic links the kernel follows.
const mostLinks = 40

// follow is where path leads through symbolic links, there or not: dotfiles may lie elsewhere.
func follow(path string) (string, error) {
	for range mostLinks {
		to, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) { // absent; no link
			return path, nil
		}
		if err != nil {
			return "", fmt.Errorf("find the ssh configuration: %w", err)
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(path)) // a .. in the link means the directory where it really lies
			if err != nil {
				return "", fmt.Errorf("find the ssh configuration: %w", err)
			}
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", fmt.Errorf("find the ssh configuration %s: %w", path, syscall.ELOOP)
}
