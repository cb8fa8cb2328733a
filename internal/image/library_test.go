package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

func TestEnsureBuildsOnceAndReports(t *testing.T) {
	l, b, _ := newTest(t)
	b.init = true
	var events []string
	report := func(e vm.Event) {
		events = append(events, strings.TrimSpace(e.Name+" "+e.Kind+" "+e.Stage+" "+e.Status+" "+e.Text))
	}
	img, err := l.Ensure(t.Context(), vm.DefaultImage, report)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"debian-bookworm stage image begin", "debian-bookworm note image  downloading packages",
		"debian-bookworm note image  making the root disk", "debian-bookworm stage image end",
	}
	if !slices.Equal(events, want) {
		t.Errorf("events %q\nwant   %q", events, want)
	}
	if img.Init != "/sbin/init" || img.Source != "mmdebstrap bookworm" || img.Size == 0 || !strings.HasPrefix(img.Digest, "sha256:") {
		t.Errorf("image %+v", img)
	}
	if st, err := os.Stat(l.RootPath(img.Digest)); err != nil || st.Mode().Perm() != 0o444 {
		t.Errorf("root disk: %v %v", st, err)
	}
	if names := ls(t, l.cfg.Dir); len(names) != 1 {
		t.Errorf("images directory holds %v", names)
	}
	if onDisk, err := l.read(img.Digest); err != nil || onDisk.Digest != img.Digest || onDisk.Init != img.Init {
		t.Errorf("image.json: %+v %v", onDisk, err)
	}

	events = nil
	again, err := l.Ensure(t.Context(), vm.DefaultImage, report)
	if err != nil || again.Digest != img.Digest || b.builds.Load() != 1 || len(events) != 0 {
		t.Errorf("second Ensure: %v %v, %d builds, events %q", again, err, b.builds.Load(), events)
	}

	if err := os.RemoveAll(l.dir(img.Digest)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ensure(t.Context(), vm.DefaultImage, nil); err != nil || b.builds.Load() != 2 {
		t.Errorf("Ensure of an image whose file is gone: %v, %d builds", err, b.builds.Load())
	}
}

func TestEnsureUnknownNamesWhatThereIs(t *testing.T) {
	l, _, m := newTest(t)
	m.images["mine"] = vm.Image{Name: "mine"}
	_, err := l.Ensure(t.Context(), "debain", nil)
	if vm.CodeOf(err) != vm.CodeNotFound || vm.HintOf(err) != "images: mine; can be built: debian-bookworm" {
		t.Errorf("%v, code %s, hint %q", err, vm.CodeOf(err), vm.HintOf(err))
	}
	for typed, near := range map[string]string{"mien": "mine", "debian-bokworm": vm.DefaultImage} {
		if err := l.Known(t.Context(), typed); !strings.HasPrefix(vm.HintOf(err), "did you mean "+near+"? images: mine; ") {
			t.Errorf("%s: %v, hint %q", typed, err, vm.HintOf(err))
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		o    BuildOptions
		code vm.Code
	}{
		{"unknown recipe", BuildOptions{Name: "nope"}, vm.CodeNotFound},
		{"unknown recipe under a good name", BuildOptions{Name: "mine", Recipe: "nope"}, vm.CodeNotFound},
		{"path as name", BuildOptions{Name: "../mine", Recipe: vm.DefaultImage}, vm.CodeInvalid},
		{"option as package", BuildOptions{Name: vm.DefaultImage, Packages: []string{"--customize-hook=id"}}, vm.CodeInvalid},
		{"list as package", BuildOptions{Name: vm.DefaultImage, Packages: []string{"git,vim"}}, vm.CodeInvalid},
		{"removal", BuildOptions{Name: vm.DefaultImage, Packages: []string{"bash-"}}, vm.CodeInvalid},
		{"empty package", BuildOptions{Name: vm.DefaultImage, Packages: []string{""}}, vm.CodeInvalid},
		{"option as mirror", BuildOptions{Name: vm.DefaultImage, Mirror: "--setup-hook=id"}, vm.CodeInvalid},
		{"path as mirror", BuildOptions{Name: vm.DefaultImage, Mirror: "/etc/passwd"}, vm.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, b, _ := newTest(t)
			_, err := l.Build(t.Context(), c.o, nil)
			if vm.CodeOf(err) != c.code || b.builds.Load() != 0 {
				t.Errorf("%v, code %s, %d builds; want code %s and none", err, vm.CodeOf(err), b.builds.Load(), c.code)
			}
		})
	}
}

func TestBuildOfOneThatIsThere(t *testing.T) {
	l, b, _ := newTest(t)
	first, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage}, nil); err != nil || again.Digest != first.Digest || b.builds.Load() != 1 {
		t.Errorf("same options: %v %v, %d builds", again, err, b.builds.Load())
	}
	if _, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage, Packages: []string{"git"}}, nil); vm.CodeOf(err) != vm.CodeExists {
		t.Errorf("other packages: %v, want code exists", err)
	}
	b.content.Store("newer")
	second, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage, Packages: []string{"git"}, Force: true}, nil)
	if err != nil || second.Digest == first.Digest || second.Source != "mmdebstrap bookworm with git" {
		t.Fatalf("forced: %+v %v", second, err)
	}
	old, err := l.Get(t.Context(), first.Digest)
	if err != nil || old.Digest != first.Digest {
		t.Errorf("the image VMs still stand on: %+v %v", old, err)
	}
	same, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage, Packages: []string{"git"}, Force: true}, nil)
	if err != nil || same.Digest != second.Digest {
		t.Errorf("forced with the same outcome: %+v %v", same, err)
	}
	if names := ls(t, l.cfg.Dir); len(names) != 2 {
		t.Errorf("images directory holds %v, want two", names)
	}
	if _, err := l.Get(t.Context(), "sha256:"+strings.Repeat("0", 64)); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("unknown digest: %v", err)
	}
}

func TestBuildFailuresLeaveNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		set  func(*builder, *memory)
		want error
		code vm.Code
	}{
		{"bootstrap", func(b *builder, _ *memory) { b.bootstrapErr = boom }, boom, vm.CodeInternal},
		{"unpack", func(b *builder, _ *memory) { b.unpackErr = boom }, boom, vm.CodeInternal},
		{"format", func(b *builder, _ *memory) { b.formatErr = boom }, boom, vm.CodeInternal},
		{"record", func(_ *builder, m *memory) { m.putErr = boom }, boom, vm.CodeInternal},
		{"disk full", func(b *builder, _ *memory) { b.unpackErr = unix.ENOSPC }, unix.ENOSPC, vm.CodeNoSpace},
		{"program missing", func(b *builder, _ *memory) {
			b.bootstrapErr = vm.Errorf(vm.CodeMissing, "mmdebstrap is not installed").WithHint("apt install mmdebstrap")
		}, nil, vm.CodeMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, b, m := newTest(t)
			c.set(b, m)
			var last vm.Event
			_, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage}, func(e vm.Event) { last = e })
			if c.want != nil && !errors.Is(err, c.want) || vm.CodeOf(err) != c.code {
				t.Errorf("%v, code %s; want %v, code %s", err, vm.CodeOf(err), c.want, c.code)
			}
			if c.code != vm.CodeInternal && vm.HintOf(err) == "" {
				t.Error("no hint")
			}
			if last.Status != "failed" {
				t.Errorf("last event %+v, want failed", last)
			}
			if names := ls(t, l.cfg.Dir); len(names) != 0 {
				t.Errorf("left %v", names)
			}
			if len(m.images) != 0 {
				t.Errorf("recorded %v", m.images)
			}
		})
	}
}

func TestOneFlightForAll(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &builder{hold: make(chan struct{})}
		l := New(Config{Dir: dir, Records: newMemory()})
		l.tools = b.tools()
		impatient, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { // the one who starts it goes away
			_, err := l.Ensure(impatient, vm.DefaultImage, nil)
			left <- err
		}()
		synctest.Wait()
		const callers = 4
		type result struct {
			img vm.Image
			err error
		}
		results := make(chan result, callers)
		var notes atomic.Int32
		for range callers {
			go func() {
				img, err := l.Ensure(t.Context(), vm.DefaultImage, func(e vm.Event) {
					if e.Kind == "note" {
						notes.Add(1)
					}
				})
				results <- result{img, err}
			}()
		}
		synctest.Wait()
		if _, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage, Packages: []string{"git"}}, nil); vm.CodeOf(err) != vm.CodeConflict {
			t.Errorf("other options while a build runs: %v, want code conflict", err)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the one who left got %v", err)
		}
		close(b.hold)
		for range callers {
			if r := <-results; r.err != nil || r.img.Digest == "" {
				t.Errorf("one who stayed got %+v %v", r.img, r.err)
			}
		}
		if n := b.builds.Load(); n != 1 {
			t.Errorf("%d builds, want 1", n)
		}
		if n := notes.Load(); n != callers { // of the root disk; they came after the download's
			t.Errorf("%d notes reached those who joined, want %d", n, callers)
		}
	})
}

func TestAllGoneCancelsAndCleansUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, m := &builder{hold: make(chan struct{})}, newMemory()
		l := New(Config{Dir: dir, Records: m})
		l.tools = b.tools()
		ctx, leave := context.WithCancel(t.Context())
		for range 3 {
			go func() { _, _ = l.Ensure(ctx, vm.DefaultImage, nil) }()
		}
		synctest.Wait()
		if names := ls(t, dir); len(names) != 1 || !strings.HasPrefix(names[0], stagePrefix) {
			t.Fatalf("while building: %v", names)
		}
		if err := l.Reconcile(t.Context()); err != nil || len(ls(t, dir)) != 1 {
			t.Errorf("Reconcile touched a running build: %v, %v", ls(t, dir), err)
		}
		leave()
		synctest.Wait()
		if names := ls(t, dir); len(names) != 0 {
			t.Errorf("after all left: %v", names)
		}
		close(b.hold)
		if _, err := l.Ensure(t.Context(), vm.DefaultImage, nil); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

func TestCloseEndsBuilds(t *testing.T) {
	l, b, _ := newTest(t)
	b.hold, b.started = make(chan struct{}), make(chan struct{}, 1)
	got := make(chan error, 1)
	go func() {
		_, err := l.Ensure(context.Background(), vm.DefaultImage, nil)
		got <- err
	}()
	<-b.started
	l.Close()
	if names := ls(t, l.cfg.Dir); len(names) != 0 {
		t.Errorf("left %v", names)
	}
	if err := <-got; vm.CodeOf(err) != vm.CodeCanceled {
		t.Errorf("the waiting caller got %v, want code canceled", err)
	}
	if _, err := l.Ensure(context.Background(), vm.DefaultImage, nil); vm.CodeOf(err) != vm.CodeCanceled || len(ls(t, l.cfg.Dir)) != 0 {
		t.Errorf("a build after the end: %v", err)
	}
}

func TestReconcile(t *testing.T) {
	hex := func(c string) string { return strings.Repeat(c, 64) }
	fill := func(t *testing.T, dir string) {
		for _, p := range []string{stagePrefix + "1/tmp", hex("a"), hex("b"), hex("c"), "notes"} {
			if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []string{"a", "b", "c"} {
			if err := os.WriteFile(filepath.Join(dir, hex(c), rootFile), bytes.Repeat([]byte{0}, 10), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
	boom := errors.New("boom")
	for _, c := range []struct {
		name   string
		pinned func(context.Context) ([]string, error)
		left   []string
		want   error
	}{
		{"pins unknown", nil, []string{hex("a"), hex("b"), hex("c"), "notes"}, nil},
		{"one pinned", func(context.Context) ([]string, error) { return []string{"sha256:" + hex("b")}, nil }, []string{hex("a"), hex("b"), "notes"}, nil},
		{"pins fail", func(context.Context) ([]string, error) { return []string{"sha256:" + hex("b")}, boom }, []string{hex("a"), hex("b"), hex("c"), "notes"}, boom},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir)
			m := newMemory(vm.Image{Name: "a", Digest: "sha256:" + hex("a")}, vm.Image{Name: "lost", Digest: "sha256:" + hex("d")})
			l := New(Config{Dir: dir, Records: m, Pinned: c.pinned})
			l.tools = (&builder{}).tools()
			for range 2 {
				err := l.Reconcile(t.Context())
				if vm.CodeOf(err) == vm.CodeNotFound || err == nil || !strings.Contains(err.Error(), "image lost: its file is gone") {
					t.Errorf("error %v, want word of the lost image", err)
				}
				if c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				if got := ls(t, dir); !slices.Equal(got, c.left) {
					t.Errorf("left %v, want %v", got, c.left)
				}
			}
		})
	}
	l := New(Config{Dir: filepath.Join(t.TempDir(), "absent"), Records: newMemory()})
	if err := l.Reconcile(t.Context()); err != nil {
		t.Errorf("no directory yet: %v", err)
	}
}
