package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/testhost"
	"banger/internal/vm"
)

// TestBuildForReal builds Debian's image from the network and compares the mounted root disk with the tar stream, entry
// by entry. That an ordinary user's is as whole, TestOrdinaryUser of internal/e2e sees.
func TestBuildForReal(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.Root, testhost.Loop, testhost.Mmdebstrap, testhost.Ext4)
	testhost.Leaks(t)
	dir := testhost.Dir(t)
	l := New(Config{Dir: filepath.Join(dir, "images"), Records: newMemory()})
	tarFile, err := os.Create(filepath.Join(dir, "root.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tarFile.Close() }()
	l.tools.bootstrap = func(ctx context.Context, r recipe, mirror, tmp string, w io.Writer, step func(string)) error {
		return bootstrap(ctx, r, mirror, tmp, io.MultiWriter(w, tarFile), step)
	}
	start := time.Now()
	img, err := l.Build(t.Context(), BuildOptions{Name: vm.DefaultImage}, func(e vm.Event) {
		t.Logf("%6.1fs %s %s %s", time.Since(start).Seconds(), e.Kind, e.Status, e.Text)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %s: %s, %d bytes on disk", time.Since(start).Round(time.Millisecond), img.Digest, img.Size)
	if img.Init != "" {
		t.Errorf("Init = %q; the recipe has no init system", img.Init)
	}
	if names := ls(t, l.cfg.Dir); len(names) != 1 {
		t.Errorf("image directory holds %v, want the image alone", names)
	}

	fsck(t, l.RootPath(img.Digest))
	mnt := mount(t, l.RootPath(img.Digest))
	seen := compare(t, tarFile.Name(), mnt)
	for _, gone := range []string{"etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap", "usr/sbin/sshd"} {
		if seen[gone] {
			t.Errorf("%s of the builder is in the image", gone)
		}
	}
	for _, there := range []string{"usr/bin/bash", "usr/bin/ping", "usr/bin/apt-get", "usr/bin/curl", "usr/sbin/ip", "etc/apt/sources.list"} {
		if !seen[there] {
			t.Errorf("%s is not in the image", there)
		}
	}
}

// TestCancelForReal gives a build up in the middle: no process, mount or file of it may stay.
func TestCancelForReal(t *testing.T) {
	testhost.Need(t, testhost.Real, testhost.Root, testhost.Mmdebstrap)
	testhost.Leaks(t)
	l := New(Config{Dir: filepath.Join(testhost.Dir(t), "images"), Records: newMemory()})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := l.Build(ctx, BuildOptions{Name: vm.DefaultImage}, func(e vm.Event) {
		if e.Text == "installing essential packages" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build: %v, want canceled", err)
	}
	start := time.Now()
	l.Close()
	t.Logf("cleaned up in %s", time.Since(start).Round(time.Millisecond))
	if names := ls(t, l.cfg.Dir); len(names) != 0 {
		t.Errorf("left %v", names)
	}
}
