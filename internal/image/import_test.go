package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// sources are files to import, in a directory of their own.
func sources(t *testing.T, files map[string][]byte) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) string { return filepath.Join(dir, name) }
}

// unpacked stands in for tar: the tree gets what a root file system has.
func unpacked(_ context.Context, r io.Reader, tree string) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return errors.Join(os.Mkdir(filepath.Join(tree, "etc"), 0o755), os.WriteFile(filepath.Join(tree, "f"), []byte("f"), 0o600))
}

func TestImport(t *testing.T) {
	l, b, m := newTest(t)
	l.tools.unpack = unpacked
	at := sources(t, map[string][]byte{"Alpine 3.tar": rootTar, "packed.tar.gz": packed(gz, rootTar), "disk.img": superblock(1<<20, 1<<20)})
	var notes []string
	one, err := l.Import(t.Context(), ImportOptions{Source: at("Alpine 3.tar")}, func(e vm.Event) {
		if notes = append(notes, e.Kind+" "+e.Status+" "+strings.TrimSuffix(e.Text, at("Alpine 3.tar"))); e.Name != "alpine-3" {
			t.Errorf("event %+v", e)
		}
	})
	if err != nil || one.Name != "alpine-3" || one.Source != "tar Alpine 3.tar" || one.Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(rootTar)) || one.Size == 0 || one.Init != "" {
		t.Fatalf("%+v, %v", one, err)
	}
	if want := []string{"stage begin ", "note  reading ", "note  making the root disk", "stage end "}; !slices.Equal(notes, want) {
		t.Errorf("events %q, want %q", notes, want)
	}
	// The same, packed: one set of files under two names.
	two, err := l.Import(t.Context(), ImportOptions{Source: at("packed.tar.gz"), Name: "two"}, nil)
	if err != nil || two.Digest != one.Digest || len(ls(t, l.cfg.Dir)) != 1 || len(m.images) != 2 {
		t.Errorf("%+v, %v, %q", two, err, ls(t, l.cfg.Dir))
	}
	b.init = true
	disk, err := l.Import(t.Context(), ImportOptions{Source: at("disk.img")}, nil)
	if err != nil || disk.Name != "disk" || disk.Init != "/sbin/init" || disk.Source != "ext4 disk.img" || b.cleared.Load() {
		t.Errorf("%+v, %v", disk, err)
	}
	if got, err := os.ReadFile(l.RootPath(disk.Digest)); err != nil || string(got) != string(superblock(1<<20, 1<<20)) {
		t.Errorf("its disk is another: %d bytes, %v", len(got), err)
	}
	for _, o := range []ImportOptions{{Source: at("disk.img"), Name: "two"}, {Source: at("packed.tar.gz"), Name: "alpine-3"}} {
		if _, err := l.Import(t.Context(), o, nil); vm.CodeOf(err) != vm.CodeExists || !strings.Contains(vm.HintOf(err), "--force") {
			t.Errorf("over another: %v (hint %q)", err, vm.HintOf(err))
		}
	}
	moved, err := l.Import(t.Context(), ImportOptions{Source: at("disk.img"), Name: "two", Force: true}, nil)
	if err != nil || moved.Digest != disk.Digest || m.images["two"].Digest != disk.Digest {
		t.Errorf("forced: %+v, %v", moved, err)
	}
	for _, name := range []string{"../x", "X", strings.Repeat("x", 64)} {
		if _, err := l.Import(t.Context(), ImportOptions{Source: at("disk.img"), Name: name}, nil); vm.CodeOf(err) != vm.CodeInvalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestImportLeavesNothingWhenItFails(t *testing.T) {
	at := sources(t, map[string][]byte{"root.tar": rootTar, "other.tgz": packed(gz, tarOf("rootfs/", "rootfs/bin/")), "cut.tgz": packed(gz, append(rootTar, make([]byte, 1<<20)...))[:300], "disk": superblock(1<<20, 1<<20)})
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		source string
		set    func(l *Library, b *builder, m *memory)
		code   vm.Code
		words  string
	}{
		"tar fails":        {"root.tar", func(_ *Library, b *builder, _ *memory) { b.unpackErr = boom }, vm.CodeInvalid, "damaged, or cut off: boom"},
		"no room":          {"root.tar", func(_ *Library, b *builder, _ *memory) { b.unpackErr = unix.ENOSPC }, vm.CodeNoSpace, "import image mine"},
		"no root in there": {"other.tgz", func(l *Library, _ *builder, _ *memory) { l.tools.unpack = unpack }, vm.CodeInvalid, "no root file system"},
		"cut off":          {"cut.tgz", func(l *Library, _ *builder, _ *memory) { l.tools.unpack = unpacked }, vm.CodeInvalid, "cut off"},
		"mkfs fails":       {"root.tar", func(l *Library, b *builder, _ *memory) { l.tools.unpack, b.formatErr = unpacked, boom }, vm.CodeInternal, "boom"},
		"e2fsck fails":     {"disk", func(_ *Library, b *builder, _ *memory) { b.settleErr = vm.Errorf(vm.CodeInvalid, "damaged") }, vm.CodeInvalid, "damaged"},
		"a program lacks": {"disk", func(l *Library, _ *builder, _ *memory) {
			l.tools.ready = func(kind) error { return vm.Errorf(vm.CodeMissing, "no debugfs") }
		}, vm.CodeMissing, "no debugfs"},
		"the row": {"disk", func(_ *Library, _ *builder, m *memory) { m.putErr = boom }, vm.CodeInternal, "boom"},
		"the name is taken meanwhile": {"disk", func(_ *Library, _ *builder, m *memory) {
			m.putting = func() { m.putErr = vm.Errorf(vm.CodeExists, "an image named mine exists") }
		}, vm.CodeExists, "mine exists"},
	} {
		l, b, m := newTest(t)
		c.set(l, b, m)
		_, err := l.Import(t.Context(), ImportOptions{Source: at(c.source), Name: "mine"}, nil)
		if vm.CodeOf(err) != c.code || err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v (code %s), want code %s with %q", name, err, vm.CodeOf(err), c.code, c.words)
		}
		if entries, _ := os.ReadDir(l.cfg.Dir); len(entries) != 0 || len(m.images) != 0 {
			t.Errorf("%s: left %v, %v", name, entries, m.images)
		}
	}
}

func TestImportGivenUpLeavesNothing(t *testing.T) {
	l, _, m := newTest(t)
	at := sources(t, map[string][]byte{"root.tar": rootTar})
	ctx, leave := context.WithCancel(t.Context())
	l.tools.unpack = func(ctx context.Context, _ io.Reader, _ string) error {
		leave()
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := l.Import(ctx, ImportOptions{Source: at("root.tar")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	l.Close() // waits for who cleans up
	if left := ls(t, l.cfg.Dir); len(left) != 0 || len(m.images) != 0 {
		t.Errorf("left %q, %v", left, m.images)
	}
}

func TestAdopt(t *testing.T) {
	l, b, m := newTest(t)
	b.init = true
	fill := func(text string) func(context.Context, string) error {
		return func(_ context.Context, root string) error { return os.WriteFile(root, []byte(text), 0o600) }
	}
	o := AdoptOptions{What: "commit VM web", Name: "mine", Source: "VM web of img", Env: []string{"A=b"}}
	img, err := l.Adopt(t.Context(), o, fill("disk"), nil)
	if err != nil || img.Name != "mine" || img.Source != "VM web of img" || !slices.Equal(img.Env, o.Env) || img.Init != "/sbin/init" || !b.cleared.Load() || m.images["mine"].Digest != img.Digest {
		t.Fatalf("%+v, cleared %v, %v", img, b.cleared.Load(), err)
	}
	if got, err := os.ReadFile(l.RootPath(img.Digest)); err != nil || string(got) != "disk" {
		t.Errorf("it holds %q, %v", got, err)
	}
	asked := false
	never := func(context.Context, string) error { asked = true; return nil }
	if _, err := l.Adopt(t.Context(), o, never, nil); vm.CodeOf(err) != vm.CodeExists || !strings.Contains(err.Error(), "commit VM web: an image named mine exists") {
		t.Errorf("over another: %v", err)
	}
	bad := o
	bad.Name = "../x"
	if _, err := l.Adopt(t.Context(), bad, never, nil); vm.CodeOf(err) != vm.CodeInvalid || asked {
		t.Errorf("a bad name: %v, began: %v", err, asked)
	}
	o.Force = true
	if again, err := l.Adopt(t.Context(), o, fill("other"), nil); err != nil || again.Digest == img.Digest {
		t.Errorf("forced: %+v, %v", again, err)
	}
	before := ls(t, l.cfg.Dir)
	_, err = l.Adopt(t.Context(), o, func(context.Context, string) error { return vm.Errorf(vm.CodeConflict, "it was started") }, nil)
	if vm.CodeOf(err) != vm.CodeConflict || !strings.Contains(err.Error(), "commit VM web: it was started") || !slices.Equal(ls(t, l.cfg.Dir), before) {
		t.Errorf("%v, left %q, before %q", err, ls(t, l.cfg.Dir), before)
	}
}
