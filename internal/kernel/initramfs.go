package kernel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"banger/internal/act"
	"banger/internal/vm"
)

// initramfsLayout is part of the cache key: count it up when the content changes for the same guest and kernel.
const initramfsLayout = "2"

// guestKey names the guest binary and the layout in the cache.
func (l *Library) guestKey() string {
	sum := sha256.Sum256([]byte(initramfsLayout + "\n" + l.Guest.Key))
	return hex.EncodeToString(sum[:8])
}

// initramfs returns the cached initramfs of a kernel, made when missing.
func (l *Library) initramfs(ctx context.Context, digest string) (string, error) {
	dir, err := l.path(digest)
	if err != nil {
		return "", err
	}
	dst := filepath.Join(l.InitramfsDir, filepath.Base(dir)[:16]+"-"+l.guestKey()+".img")
	if _, err := os.Stat(dst); err == nil {
		return dst, nil
	}
	img, err := l.builds.Do(ctx, dst, nil, func(ctx context.Context, _ vm.Report) (string, error) {
		return dst, l.buildInitramfs(ctx, dst, filepath.Join(dir, dirBoot))
	})
	return img, l.explain("make the initramfs of kernel "+digest, err)
}

func (l *Library) buildInitramfs(ctx context.Context, dst, boot string) error {
	guest, err := l.Guest.Binary()
	if err != nil {
		return err
	}
	if err := act.Do(ctx, "initramfs.directory", func() error { return os.MkdirAll(l.InitramfsDir, 0o755) }); err != nil {
		return err
	}
	var f *renameio.PendingFile
	err = act.Do(ctx, "initramfs.temp", func() (err error) {
		f, err = renameio.NewPendingFile(dst, renameio.WithPermissions(0o644), renameio.WithTempDir(l.InitramfsDir))
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = act.Do(ctx, "initramfs.temp.remove", f.Cleanup) }()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := writeInitramfs(w, guest, boot); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return act.Do(ctx, "initramfs", f.CloseAtomicallyReplace)
}

// writeInitramfs writes the cpio archive around the guest binary: /init, /modules with the two load orders, empty
// mount points, and the nodes that init has before it mounts devtmpfs.
func writeInitramfs(w io.Writer, guest []byte, boot string) error {
	order, err := readOrder(filepath.Join(boot, fileOrder))
	if err != nil {
		return err
	}
	vsock, err := readOrder(filepath.Join(boot, fileVSock))
	if err != nil {
		return err
	}
	c := &cpioWriter{w: w}
	for _, dir := range []string{"dev", "modules", "proc", "run", "sys", "sysroot", "tmp"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1)
	c.char("dev/null", 1, 3)
	c.file("init", 0o755, guest)
	for _, name := range slices.Concat([]string{fileOrder, fileVSock}, order, vsock) {
		content, err := os.ReadFile(filepath.Join(boot, name))
		if errors.Is(err, fs.ErrNotExist) && name == fileVSock {
			continue
		}
		if err != nil {
			return err
		}
		c.file("modules/"+name, 0o644, content)
	}
	return c.close()
}

// readOrder reads a load order: file names, one per line. A missing file is an empty order.
func readOrder(name string) ([]string, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		file := strings.TrimSpace(s.Text())
		if file == "" {
			continue
		}
		if filepath.Base(file) != file {
			return nil, vm.Errorf(vm.CodeCorrupt, "read %s: %q is not a file name", name, file)
		}
		files = append(files, file)
	}
	return files, nil
}

// sweepInitramfs removes what no kernel in keep (directory names) boots with this guest binary; a running VMM has read its own.
func (l *Library) sweepInitramfs(ctx context.Context, keep map[string]bool) error {
	entries, err := os.ReadDir(l.InitramfsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep the initramfs cache: %w", err)
	}
	current := map[string]bool{}
	for name := range keep {
		current[name[:16]+"-"+l.guestKey()+".img"] = true
	}
	var errs []error
	for _, e := range entries {
		if !current[e.Name()] && strings.Contains(e.Name(), ".img") && e.Type().IsRegular() {
			errs = append(errs, act.Do(ctx, "initramfs.remove", func() error { return os.Remove(filepath.Join(l.InitramfsDir, e.Name())) }))
		}
	}
	return errors.Join(errs...)
}
