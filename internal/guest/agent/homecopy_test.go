package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// describe lists what is in a tree, a line each.
func describe(t *testing.T, tree string, times bool) (lines []string) {
	t.Helper()
	must(t, filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(b)
		case unix.S_IFLNK:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		rel, _ := filepath.Rel(tree, path)
		line := fmt.Sprintf("%s %o %d:%d %q", rel, st.Mode, st.Uid, st.Gid, content)
		if times {
			line += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// TestPlainCopyIsLikeAnyOther holds the quick way against the one that copies everything.
func TestPlainCopyIsLikeAnyOther(t *testing.T) {
	tree := sysTree(t, map[string]string{".profile": "profile", "empty": "", "bin/tool": "#!", ".ssh/config": "Host *"})
	must(t, os.Symlink("bin/tool", filepath.Join(tree, "link")), os.Symlink("/nowhere", filepath.Join(tree, "dangling")),
		os.Mkdir(filepath.Join(tree, "nothing"), 0o755),
		os.Chmod(filepath.Join(tree, "bin/tool"), 0o755|fs.ModeSetuid), os.Chmod(filepath.Join(tree, "nothing"), 0o777|fs.ModeSticky),
		os.Chmod(filepath.Join(tree, ".ssh"), 0o500))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(tree, ".ssh"), 0o700) })
	if os.Geteuid() == 0 {
		must(t, os.Lchown(filepath.Join(tree, "link"), 12, 34), os.Chown(filepath.Join(tree, ".ssh"), 56, 78), os.Chown(filepath.Join(tree, "empty"), 9, 9))
	}
	for i, name := range []string{"bin", ".profile", "bin/tool", ".ssh", "nothing"} {
		at := time.Unix(1e9+int64(i), 123456789)
		must(t, os.Chtimes(filepath.Join(tree, name), at, at))
	}
	old := []unix.Timespec{{Sec: 5e8, Nsec: 7}, {Sec: 5e8, Nsec: 7}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(tree, "link"), old, unix.AT_SYMLINK_NOFOLLOW))

	if is, err := plain(tree); !is || err != nil {
		t.Fatalf("plain: %v, %v", is, err)
	}
	byTar, byHand := t.TempDir(), t.TempDir()
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(byTar, ".ssh"), 0o700)
		_ = os.Chmod(filepath.Join(byHand, ".ssh"), 0o700)
	})
	must(t, copyAny(t.Context(), tree, byTar))
	_, err := copyPlain(tree, byHand)
	must(t, err)
	want, got := describe(t, tree, true), describe(t, byHand, true)
	if !slices.Equal(got, want) {
		t.Errorf("copied:\n%q\nwant\n%q", got, want)
	}
	// A tar stream of ours has whole seconds.
	if tarred, want := describe(t, byTar, false), describe(t, tree, false); !slices.Equal(tarred, want) {
		t.Errorf("by tar:\n%q\nwant\n%q", tarred, want)
	}
}

func TestNotPlain(t *testing.T) {
	for name, spoil := range map[string]func(tree string) error{
		"two names": func(tree string) error { return os.Link(filepath.Join(tree, "a/b"), filepath.Join(tree, "c")) },
		"fifo":      func(tree string) error { return unix.Mkfifo(filepath.Join(tree, "f"), 0o600) },
		"attribute": func(tree string) error {
			marks(t, tree)
			return unix.Setxattr(filepath.Join(tree, "a"), "user.test", []byte("x"), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := sysTree(t, map[string]string{"a/b": "x"})
			must(t, spoil(tree))
			if is, err := plain(tree); is || err != nil {
				t.Errorf("plain: %v, %v", is, err)
			}
			to := t.TempDir()
			_, err := copyTree(t.Context(), tree, to)
			must(t, err)
			if got, want := describe(t, to, false), describe(t, tree, false); !slices.Equal(got, want) {
				t.Errorf("copied:\n%q\nwant\n%q", got, want)
			}
		})
	}
	if _, err := plain(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a tree that is not there is plain")
	}
}
