package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

// fakeApt puts an apt-get first in PATH that runs script with the wanted package as $pkg and debs in $debs.
func fakeApt(t *testing.T, script string, debs map[string][]byte) {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	for name, content := range debs {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := "#!/bin/sh\nfor pkg; do :; done\ndebs=" + dir + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

const aptCopies = `[ -e "$debs/$pkg" ] || { echo "E: Unable to locate package $pkg" >&2; exit 100; }
cp "$debs/$pkg" "$(echo "$pkg" | tr = _)_amd64.deb"`

func metaDeb(t *testing.T, name, depends string) []byte {
	return testDeb(t, "xz", "Package: "+name+"\nVersion: 1\nDepends: "+depends+"\n", map[string][]byte{"./usr/share/doc/x": nil})
}

func TestImportApt(t *testing.T) {
	needDepmod(t)
	whole := testFiles(t)
	image, modules := map[string][]byte{}, map[string][]byte{}
	for name, content := range whole {
		if strings.HasPrefix(name, "./boot") {
			image[name] = content
		} else {
			modules[name] = content
		}
	}
	fakeApt(t, aptCopies, map[string][]byte{
		"linux-image-cloud":            metaDeb(t, "linux-image-cloud", "linux-image-6 (= 6.1.2-3)"),
		"linux-image-6=6.1.2-3":        testDeb(t, "xz", testControl, whole),
		"linux-image-split":            testDeb(t, "xz", "Package: linux-image-split\nVersion: 7\nDepends: linux-modules-split, linux-base\n", image),
		"linux-modules-split":          testDeb(t, "xz", "Package: linux-modules-split\nVersion: 8\n", modules),
		"linux-image-circle":           metaDeb(t, "linux-image-circle", "linux-image-circle"),
		"linux-image-broken":           metaDeb(t, "linux-image-broken", "linux-image-nowhere"),
		"hello":                        metaDeb(t, "hello", "libc6"),
		"linux-image-damaged-download": []byte("<html>"),
	})
	l, _ := newLibrary(t)
	for _, c := range []struct{ pkg, version string }{{"linux-image-cloud", "6.1.2-3"}, {"linux-image-split", "7"}} {
		k, err := l.Import(t.Context(), "x", "apt:"+c.pkg, nil)
		if err != nil || k.Version != c.version || k.Release != testRelease {
			t.Errorf("%s: %+v, %v", c.pkg, k, err)
		}
	}
	for pkg, want := range map[string]vm.Code{
		"linux-image-circle": vm.CodeInvalid, "linux-image-broken": vm.CodeNotFound, "hello": vm.CodeInvalid,
		"linux-image-none": vm.CodeNotFound, "linux-image-damaged-download": vm.CodeInvalid,
	} {
		_, err := l.Import(t.Context(), "x", "apt:"+pkg, nil)
		if vm.CodeOf(err) != want {
			t.Errorf("%s: %v (%s), want %s", pkg, err, vm.CodeOf(err), want)
		}
		if want == vm.CodeNotFound && !strings.Contains(vm.HintOf(err), "apt-get update") {
			t.Errorf("%s: hint %q", pkg, vm.HintOf(err))
		}
	}
}

func TestEnsure(t *testing.T) {
	needDepmod(t)
	fakeApt(t, aptCopies+"; echo x >> $debs/count", map[string][]byte{strings.TrimPrefix(DefaultSource, "apt:"): testDeb(t, "xz", testControl, testFiles(t))})
	l, _ := newLibrary(t)
	if _, err := l.Ensure(t.Context(), "other", nil); vm.CodeOf(err) != vm.CodeNotFound || !strings.Contains(vm.HintOf(err), "none yet") {
		t.Errorf("%v, hint %q", err, vm.HintOf(err))
	}
	k, err := l.Ensure(t.Context(), vm.DefaultKernel, nil)
	if err != nil || k.Name != vm.DefaultKernel || k.Source != DefaultSource {
		t.Fatalf("%+v, %v", k, err)
	}
	t.Setenv("PATH", "/nonexistent") // no second import
	again, err := l.Ensure(t.Context(), vm.DefaultKernel, nil)
	if err != nil || again != k {
		t.Errorf("%+v, %v", again, err)
	}
	for typed, hint := range map[string]string{"other": "there are: " + vm.DefaultKernel, vm.DefaultKernel + "x": "did you mean " + vm.DefaultKernel + "? there are: "} {
		if _, err := l.Ensure(t.Context(), typed, nil); vm.CodeOf(err) != vm.CodeNotFound || !strings.HasPrefix(vm.HintOf(err), hint) {
			t.Errorf("%v, hint %q", err, vm.HintOf(err))
		}
	}
	all, err := l.List(t.Context())
	if err != nil || !slices.Equal(all, []vm.Kernel{k}) {
		t.Errorf("list %+v, %v", all, err)
	}
}

func TestEnsureRepairsTheDefault(t *testing.T) {
	needDepmod(t)
	fakeApt(t, aptCopies, map[string][]byte{strings.TrimPrefix(DefaultSource, "apt:"): testDeb(t, "xz", testControl, testFiles(t))})
	l, _ := newLibrary(t)
	k, err := l.Ensure(t.Context(), vm.DefaultKernel, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ensure(t.Context(), vm.DefaultKernel, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.check(k.Digest); err != nil {
		t.Error(err)
	}
}

func TestImportIsCancelled(t *testing.T) {
	// The download's child must end as well: it holds the write end of the pipe that is read to the end here.
	fakeApt(t, `echo up > $debs/fifo; sleep 600 > $debs/fifo & wait`, nil)
	script, err := os.ReadFile(filepath.Join(strings.Split(os.Getenv("PATH"), ":")[0], "apt-get"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(script), "debs=")
	debs, _, _ := strings.Cut(rest, "\n")
	fifo := filepath.Join(debs, "fifo")
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	l, _ := newLibrary(t)
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() {
		_, err := l.Import(ctx, "x", "apt:linux-image-x", nil)
		returned <- err
	}()
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-returned; vm.CodeOf(err) != vm.CodeCanceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	read, err := os.OpenFile(fifo, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	pipe.Close()
	if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := read.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the download's child still runs: %d, %v", n, err)
	}
	read.Close()
	// The flight cleans up after its last caller has gone.
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for tick := time.NewTicker(10 * time.Millisecond); len(ls(t, l.Dir)) > 0; {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("left %q", ls(t, l.Dir))
		}
	}
}
