package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger/internal/crashtest"
	"banger/internal/testhost"
)

const tiny = "tiny" // what the image and the kernel are called that are made and lost

// bootstrapper stands for mmdebstrap, whose minute would leave no time for the points: its tree has one file, and is the same
// each time. What comes after it is the real thing. Its own death half-way is a test of internal/image.
const bootstrapper = `#!/bin/sh
set -eu
mkdir -p "$TMPDIR/made/etc"
echo made >"$TMPDIR/made/etc/mark"
exec tar --create --directory="$TMPDIR/made" --sort=name --mtime=@0 .
`

// librarySource puts the bootstrapper where a daemon finds it first, and makes files to import a kernel and an image from.
func librarySource(t *testing.T) (kernel, root string) {
	t.Helper()
	dir := testhost.Dir(t)
	kernel, root = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "root.tar")
	for path, content := range map[string][]byte{filepath.Join(dir, "mmdebstrap"): []byte(bootstrapper), kernel: crashtest.Vmlinux(), root: markedTar(t)} {
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return kernel, root
}

// markedTar is what the bootstrapper makes, as far as this test looks.
func markedTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	const mark = "made\n"
	err := w.WriteHeader(&tar.Header{Name: "etc/mark", Mode: 0o644, Size: int64(len(mark))})
	if err == nil {
		_, err = w.Write([]byte(mark))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// libraryOperations make and delete what VMs stand on. None does: that those are refused others test.
func libraryOperations(source, root string) []operation {
	build := []string{"image", "build", "-q", "--name", tiny}
	imports := []string{"kernel", "import", "-q", "--name", tiny, source}
	made := func(args []string) func(*matrix, *testing.T) {
		return func(m *matrix, t *testing.T) { m.with(t).ok(args...) } // one that is there is left, or made again as it was
	}
	gone := func(noun string) func(*matrix, *testing.T) {
		return func(m *matrix, t *testing.T) {
			if slices.ContainsFunc(m.with(t).library(noun), func(e entry) bool { return e.Name == tiny }) {
				m.with(t).ok(noun, "delete", tiny)
			}
		}
	}
	all := []operation{
		{name: "image build", args: build, prepare: gone("image")},
		{name: "image import", args: []string{"image", "import", "-q", "--force", "--name", tiny, root}, prepare: gone("image")},
		{name: "image delete", args: []string{"image", "delete", tiny}, prepare: made(build)},
		{name: "kernel import", args: imports, prepare: gone("kernel")},
		{name: "kernel delete", args: []string{"kernel", "delete", tiny}, prepare: made(imports)},
	}
	for i := range all {
		all[i].before, all[i].library, all[i].then = absent, true, (*matrix).libraryKept
	}
	return all
}

// entry is what images and kernels have in common.
type entry struct{ Name, Digest string }

func (b *box) library(noun string) (all []entry) {
	b.t.Helper()
	b.json(&all, noun, "list", "--json")
	return all
}

// libraryKept holds records against files, does the same again, and takes it all away.
func (m *matrix) libraryKept(c outcome) {
	b := m.with(c.T)
	noun, makes := c.args[0], c.args[1] != "delete"
	there := m.whole(c)
	if c.code == 0 && there != makes {
		m.lost(c, fmt.Sprintf("the command succeeded, and that it is there is %v", there))
	}
	_, errs, code := b.run(nil, c.args...)
	if done := !makes && !there; done && (code != 125 || !strings.Contains(errs, "there is none of that name")) || !done && code != 0 {
		c.Errorf("the same again: exit code %d\n%s", code, errs)
	}
	if m.whole(c) != makes {
		c.Errorf("after the same again, that it is there is %v", !makes)
	}
	if makes {
		b.ok(noun, "delete", tiny)
	}
	m.nothingLeft(c.T, c.operation)
}

// whole holds that each record has its files, and nothing else is in the directory. It says whether the tiny one is there.
func (m *matrix) whole(c outcome) (there bool) {
	c.Helper()
	noun := c.args[0]
	files := map[string][]string{
		"image":  {"root.ext4", "image.json"},
		"kernel": {"vmlinux", "modules.ext4", "kernel.json", "boot/order"},
	}[noun]
	dir := filepath.Join(m.root, noun+"s")
	recorded := map[string]bool{}
	for _, e := range m.with(c.T).library(noun) {
		hex := strings.TrimPrefix(e.Digest, "sha256:")
		recorded[hex] = true
		for _, f := range files {
			if st, err := os.Stat(filepath.Join(dir, hex, f)); err != nil || !st.Mode().IsRegular() {
				m.lost(c, fmt.Sprintf("%s %s is recorded without its %s: %v", noun, e.Name, f, err))
			}
		}
		if e.Name != tiny {
			continue
		}
		there = true
		if b, err := os.ReadFile(filepath.Join(dir, hex, "vmlinux")); noun == "kernel" && !bytes.Equal(b, crashtest.Vmlinux()) {
			m.lost(c, fmt.Sprintf("the kernel is another than was imported: %d bytes, %v", len(b), err))
		}
		if noun == "image" {
			out, err := exec.Command("debugfs", "-R", "cat /etc/mark", filepath.Join(dir, hex, "root.ext4")).Output()
			if err != nil || string(out) != "made\n" {
				m.lost(c, fmt.Sprintf("the image is not what was built: %q, %v", out, err))
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.Error(err)
	}
	for _, e := range entries {
		if !recorded[e.Name()] {
			m.result(c.operation).Leaked++
			c.Errorf("%s belongs to no %s", filepath.Join(dir, e.Name()), noun)
		}
	}
	return there
}
