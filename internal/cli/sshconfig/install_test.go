package sshconfig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
	"banger/internal/vm"
)

const text = header + "\nHost *.vm\n    User root\n"

// tree is what lies below a directory: path → mode, and content or where it leads.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type() == fs.ModeSymlink:
			content, err = os.Readlink(path)
		case d.Type().IsRegular():
			var b []byte
			b, err = os.ReadFile(path)
			content = string(b)
		}
		st := fi.Sys().(*syscall.Stat_t)
		all[strings.TrimPrefix(path, dir)] = fi.Mode().String() + " " + string(rune('0'+st.Uid%10)) + " " + content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func equal(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%s: %s is %q, want %q", what, path, got[path], want[path])
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %s is there: %q", what, path, got[path])
		}
	}
}

func put(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	path = filepath.Clean(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// What was there is there again after --uninstall, whatever it was, and in between it has one block more.
func TestInstallAndBack(t *testing.T) {
	const config = "# mine\nHost a\n\tUser b"
	for name, make := range map[string]func(t *testing.T, ssh string){
		"an ordinary one":     func(t *testing.T, ssh string) { put(t, ssh+"/config", config, 0o644) },
		"of a narrow mode":    func(t *testing.T, ssh string) { put(t, ssh+"/config", config, 0o400) },
		"empty":               func(t *testing.T, ssh string) { put(t, ssh+"/config", "", 0o600) },
		"of a directory only": func(t *testing.T, ssh string) { put(t, ssh+"/known_hosts", "x", 0o600) },
		"a link": func(t *testing.T, ssh string) {
			put(t, ssh+"/../dotfiles/ssh/config", config, 0o640)
			put(t, ssh+"/id", "", 0o600)
			if err := os.Symlink("../dotfiles/ssh/config", ssh+"/config"); err != nil {
				t.Fatal(err)
			}
		},
		"a link to a link, in a linked directory": func(t *testing.T, ssh string) {
			dotfiles := filepath.Dir(ssh) + "/dotfiles"
			put(t, dotfiles+"/real", config, 0o600)
			put(t, dotfiles+"/sub/ssh/id", "", 0o600)
			for link, to := range map[string]string{ssh: "dotfiles/sub/ssh", dotfiles + "/sub/ssh/config": "../c", dotfiles + "/sub/c": "../real"} {
				if err := os.Symlink(to, link); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a link to what is not there": func(t *testing.T, ssh string) {
			put(t, ssh+"/id", "", 0o600)
			if err := os.Symlink("nothing", ssh+"/config"); err != nil {
				t.Fatal(err)
			}
		},
		"another user's": func(t *testing.T, ssh string) {
			if os.Geteuid() != 0 {
				t.Skip("takes root")
			}
			put(t, ssh+"/config", config, 0o600)
			if err := os.Chown(ssh+"/config", 65533, 65534); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			p := In(home)
			make(t, filepath.Join(home, ".ssh"))
			before := tree(t, home)
			old, _ := os.ReadFile(p.Config())
			for i := range 3 {
				changed, err := p.Install(text)
				if err != nil || changed != (i == 0) {
					t.Fatalf("install %d: %v, %v", i, changed, err)
				}
			}
			now, err := os.ReadFile(p.Config())
			if err != nil || !strings.HasPrefix(string(now), begin+"\n") || !strings.HasSuffix(string(now), end+"\n"+string(old)) || strings.Count(string(now), "Include") != 1 {
				t.Errorf("installed: %q, %v", now, err)
			}
			if b, err := os.ReadFile(p.File()); err != nil || string(b) != text {
				t.Errorf("the file: %q, %v", b, err)
			}
			if fi, err := os.Stat(p.File()); err != nil || fi.Mode() != 0o600 {
				t.Errorf("the file: %v, %v", fi, err)
			}
			if changed, err := p.Install(text + "# new\n"); err != nil || !changed {
				t.Errorf("another text: %v, %v", changed, err)
			}
			for i := range 2 {
				removed, err := p.Uninstall()
				if err != nil || removed != (i == 0) {
					t.Errorf("uninstall %d: %v, %v", i, removed, err)
				}
			}
			equal(t, "after", tree(t, home), before)
		})
	}
}

// A configuration that was not there is made private, and goes again unless something was added to it.
func TestInstallIntoNothing(t *testing.T) {
	home := t.TempDir()
	p := In(home)
	for range 2 {
		if _, err := p.Install(text); err != nil {
			t.Fatal(err)
		}
	}
	got := tree(t, home)
	if !strings.HasPrefix(got["/.ssh"], "drwx------ ") || !strings.HasPrefix(got["/.ssh/config"], "-rw------- ") {
		t.Errorf("%q", got)
	}
	if removed, err := p.Uninstall(); err != nil || !removed {
		t.Errorf("%v, %v", removed, err)
	}
	if entries, err := os.ReadDir(home + "/.ssh"); err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
	if _, err := p.Install(text); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(p.Config())
	put(t, p.Config(), string(b)+"Host mine\n", 0o600)
	if _, err := p.Uninstall(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(p.Config()); err != nil || string(b) != "Host mine\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// A block that was moved down, below a Host line, would hold for that host only: it goes back to the top.
func TestInstallMovesTheBlockUp(t *testing.T) {
	p := In(t.TempDir())
	put(t, p.Config(), "Host a\n"+block(p.File(), false)+"User b\n", 0o600)
	if _, err := p.Install(text); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(p.Config()); string(b) != block(p.File(), false)+"Host a\nUser b\n" {
		t.Errorf("%q", b)
	}
}

// Where the configuration cannot be written, nothing of ours is left, or what was there before.
func TestInstallWithoutADirectory(t *testing.T) {
	for _, before := range []string{"", header + "\nearlier\n"} {
		home := t.TempDir()
		p := In(home)
		if err := errors.Join(os.Mkdir(p.dir, 0o700), os.Symlink(home+"/none/config", p.Config())); err != nil {
			t.Fatal(err)
		}
		if before != "" {
			put(t, p.File(), before, 0o600)
		}
		was := tree(t, home)
		if changed, err := p.Install(text); err == nil || changed || vm.HintOf(err) == "" {
			t.Errorf("installed: %v, %v", changed, err)
		}
		equal(t, "after", tree(t, home), was)
	}
}

// On a full disk not even ssh's directory is left, where there was none.
func TestInstallOnAFullDisk(t *testing.T) {
	testhost.Need(t, testhost.Root)
	home := t.TempDir()
	if err := unix.Mount("tmpfs", home, "tmpfs", 0, "nr_inodes=2,mode=700"); err != nil { // its root, and one directory
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(home, 0); err != nil {
			t.Error(err)
		}
	}()
	was := tree(t, home)
	if changed, err := In(home).Install(text); !errors.Is(err, unix.ENOSPC) || changed {
		t.Errorf("installed: %v, %v", changed, err)
	}
	equal(t, "after", tree(t, home), was)
}

func TestInstallRefuses(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, p Place){
		"a block without an end": func(t *testing.T, p Place) { put(t, p.Config(), "Host a\n"+begin+"\nHost b\n", 0o600) },
		"a file of that name":    func(t *testing.T, p Place) { put(t, p.File(), "Host a\n", 0o600) },
		"another's home": func(t *testing.T, p Place) {
			if os.Geteuid() != 0 {
				t.Skip("takes root")
			}
			put(t, p.Config(), "Host a\n", 0o600)
			if err := os.Chown(filepath.Dir(p.dir), 65533, 65533); err != nil {
				t.Fatal(err)
			}
		},
		"links in a circle": func(t *testing.T, p Place) {
			put(t, p.dir+"/id", "", 0o600)
			if err := os.Symlink("config", p.Config()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			p := In(home)
			make(t, p)
			before := tree(t, home)
			_, err := p.Install(text)
			if err == nil || name != "links in a circle" && vm.HintOf(err) == "" {
				t.Errorf("install: %v", err)
			}
			if removed, err := p.Uninstall(); err == nil || removed {
				t.Errorf("uninstall: %v, %v", removed, err)
			}
			equal(t, "after", tree(t, home), before)
		})
	}
}
