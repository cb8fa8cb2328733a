package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vm"
)

// unpack brings the kernel that source names into the staging area: its image (bzImage or ELF) to the file image, its
// modules into t. version is that of the package it came in, or empty. Sources: see Import.
func (l *Library) unpack(ctx context.Context, source, image string, t *tree, note func(string)) (version string, err error) {
	if pkg, ok := strings.CutPrefix(source, "apt:"); ok {
		return unpackApt(ctx, pkg, image, t, note)
	}
	if source == "installed" || strings.HasPrefix(source, "installed:") {
		_, release, _ := strings.Cut(source, ":")
		return "", l.unpackInstalled(ctx, release, image, t)
	}
	return unpackFile(ctx, source, image, t)
}

// unpackFile takes a Debian package, or a kernel image alone: one without modules, with all it needs built in.
func unpackFile(ctx context.Context, file, image string, t *tree) (version string, err error) {
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || !filepath.IsAbs(file) { // a relative one would be relative to the daemon
		return "", vm.Errorf(vm.CodeNotFound, "no kernel source %q", file).
			WithHint("a source is the absolute path of a .deb, vmlinux or bzImage file, installed[:RELEASE], or apt:PACKAGE")
	}
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", vm.Errorf(vm.CodeInvalid, "kernel source %s is not a file", file)
	}
	isDeb, err := hasMagic(file, arMagic)
	if err != nil {
		return "", err
	}
	if !isDeb {
		return "", copyFile(ctx, image, file)
	}
	c, found, err := unpackDeb(ctx, file, image, t)
	if err != nil {
		return "", err
	}
	return c.Version, checkPackage(c, found, t)
}

// checkPackage refuses a package that was no whole kernel.
func checkPackage(c control, found bool, t *tree) error {
	if found && t.added {
		return nil
	}
	lacks := "modules"
	if !found {
		lacks = "kernel image"
	}
	e := vm.Errorf(vm.CodeInvalid, "package %s holds no %s", c.Package, lacks)
	if others := kernelDependencies(c.Depends); len(others) > 0 {
		return e.WithHint("the rest is in %s: import apt:%s, which fetches them all", strings.Join(others, ", "), c.Package)
	}
	return e.WithHint("kernel packages are named linux-image-RELEASE; a kernel without modules can be imported by its vmlinuz file")
}

// unpackInstalled takes a kernel the host has installed; release "" is the running one's.
func (l *Library) unpackInstalled(ctx context.Context, release, image string, t *tree) error {
	if release == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return fmt.Errorf("find the running kernel's release: %w", err)
		}
		release = unix.ByteSliceToString(u.Release[:])
	}
	if err := t.setRelease(release); err != nil {
		return err
	}
	dir := filepath.Join(l.host, "lib/modules", release)
	err := fs.ErrNotExist
	for _, from := range []string{filepath.Join(l.host, "boot", "vmlinuz-"+release), filepath.Join(dir, "vmlinuz")} {
		if err = copyFile(ctx, image, from); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return vm.Errorf(vm.CodeNotFound, "kernel %s is not installed on this host: no /boot/vmlinuz-%s", release, release).
			WithHint("name one that is (installed:RELEASE), or import " + DefaultSource)
	}
	if errors.Is(err, fs.ErrPermission) {
		return vm.Errorf(vm.CodeInvalid, "read the kernel %s: %w", release, err).WithHint("only root may read it on this host")
	}
	if err != nil {
		return err
	}
	// The directory may be a link (merged usr), which WalkDir does not follow at its root.
	if dir, err = filepath.EvalSymlinks(dir); errors.Is(err, fs.ErrNotExist) {
		return vm.Errorf(vm.CodeNotFound, "kernel %s has no modules in /lib/modules/%s", release, release)
	} else if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return t.add(rel, f)
	})
}

// unpackApt downloads a package with the host's apt, which checks it against its signed lists, and installs nothing.
// A metapackage is followed to the kernel it stands for.
func unpackApt(ctx context.Context, pkg, image string, t *tree, note func(string)) (version string, err error) {
	if !packagePattern.MatchString(pkg) {
		return "", vm.Errorf(vm.CodeInvalid, "%q is not the name of a Debian package", pkg)
	}
	bin, err := findProgram("apt-get")
	if err != nil {
		return "", vm.Errorf(vm.CodeMissing, "download %s: %w", pkg, err).
			WithHint("this host has no apt: import a linux-image .deb file, or installed[:RELEASE]")
	}
	// The first package is what was asked for; those after it come from the dependencies.
	queue := []string{pkg}
	complete := false
	var last control
	for i := 0; i < len(queue) && i < maxPackages; i++ {
		note("downloading " + queue[i])
		file, err := aptDownload(ctx, bin, queue[i], filepath.Dir(image))
		if err != nil {
			return "", err
		}
		note("unpacking " + filepath.Base(file))
		c, found, err := unpackDeb(ctx, file, image, t)
		if err != nil {
			return "", err
		}
		if found {
			complete, version = true, c.Version
		}
		last = c
		for _, next := range kernelDependencies(c.Depends) {
			if !slices.Contains(queue, next) {
				queue = append(queue, next)
			}
		}
	}
	return version, checkPackage(last, complete, t)
}

// maxPackages is how many packages one kernel may be spread over, metapackages counted.
const maxPackages = 8

func aptDownload(ctx context.Context, bin, pkg, dir string) (file string, err error) {
	dir, err = os.MkdirTemp(dir, "apt-")
	if err != nil {
		return "", err
	}
	// apt's own sandbox user cannot write into our directory.
	cmd := exec.CommandContext(ctx, bin, "-q", "-o", "APT::Sandbox::User=root", "download", "--", pkg)
	cmd.Dir = dir
	if out, err := run(ctx, cmd); err != nil {
		if bytes.Contains(out, []byte("Unable to locate package")) || bytes.Contains(out, []byte("No packages found")) ||
			bytes.Contains(out, []byte("Can't select candidate version")) || bytes.Contains(out, []byte("was not found")) {
			return "", vm.Errorf(vm.CodeNotFound, "download %s: apt knows no such package", pkg).
				WithHint("refresh its lists: apt-get update")
		}
		if ctx.Err() == nil && !isNoSpace(err) {
			err = vm.Errorf(vm.CodeUnavailable, "download %s: %w", pkg, err).
				WithHint("refresh apt's lists (apt-get update) and check the network")
		}
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("download %s: apt-get left %d packages", pkg, len(files))
	}
	return files[0], nil
}

// run runs a command in its own process group, so that its children end with it, and returns what it printed. The
// error has the last lines of it.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return out.Bytes(), ctx.Err()
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	last := strings.Join(lines[max(0, len(lines)-3):], "; ")
	if strings.Contains(last, unix.ENOSPC.Error()) || strings.Contains(last, "No space left on device") {
		err = errors.Join(err, unix.ENOSPC)
	}
	return out.Bytes(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, last)
}

func hasMagic(file, magic string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(noEOF(err), io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(head) == magic, nil
}
