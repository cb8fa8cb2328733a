package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"

	"banger/internal/host/file"
	"banger/internal/vm"
)

// depmod makes the indexes of the tree's modules with the host's kmod, minding none of the host's configuration.
func depmod(ctx context.Context, t *tree) error {
	bin, err := findProgram("depmod")
	if err != nil {
		return vm.Errorf(vm.CodeMissing, "index modules: %w", err).WithHint("apt-get install kmod")
	}
	if _, err := run(ctx, exec.CommandContext(ctx, bin, "-C", os.DevNull, "-b", t.dir, t.release)); err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	return nil
}

// findProgram looks in the system directories as well: an ordinary user's PATH lacks sbin.
func findProgram(name string) (string, error) {
	bin, err := exec.LookPath(name)
	if err == nil {
		return bin, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if bin, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return bin, nil
		}
	}
	return "", err
}

// writeBoot copies the modules of an initramfs to dir, with their order.
func writeBoot(dir string, t *tree) error {
	dep, err := os.Open(filepath.Join(t.modules(), "modules.dep"))
	if err != nil {
		return err
	}
	defer func() { _ = dep.Close() }()
	deps, err := parseModulesDep(dep)
	if err != nil {
		return err
	}
	builtin, err := readBuiltin(filepath.Join(t.modules(), "modules.builtin"))
	if err != nil {
		return err
	}
	order, err := deps.loadOrder(bootModules, builtin, nil)
	if err != nil {
		return err
	}
	vsock, err := deps.loadOrder(vsockModules, builtin, order)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, files := range map[string][]string{fileOrder: order, fileVSock: vsock} {
		var list strings.Builder
		for _, f := range files {
			content, err := os.ReadFile(filepath.Join(t.modules(), f))
			if err != nil {
				return err
			}
			if err := file.WriteNew(filepath.Join(dir, path.Base(f)), content); err != nil {
				return err
			}
			list.WriteString(path.Base(f) + "\n")
		}
		if err := file.WriteNew(filepath.Join(dir, name), []byte(list.String())); err != nil {
			return err
		}
	}
	return file.SyncDir(dir)
}

// readBuiltin returns nil where a kernel came without modules.builtin.
func readBuiltin(name string) (map[string]bool, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseBuiltin(bytes.NewReader(b))
}

// writeModulesDisk makes a read-only ext4 of the directory dir. It takes no root and no mount: files belong to root
// whoever builds, and equal trees give equal disks.
func writeModulesDisk(ctx context.Context, dst, dir string) error {
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = pw.CloseWithError(writeTar(ctx, pw, dir)) // the reader gets the error
	}()
	err = tar2ext4.ConvertTarToExt4(pr, out)
	_ = pr.Close() // where it failed, this ends the writer, which must not read the tree while it is removed
	<-written
	if err != nil {
		return fmt.Errorf("make modules disk: %w", err)
	}
	if err := padInodeBitmaps(out); err != nil {
		return fmt.Errorf("make modules disk: %w", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

func writeTar(ctx context.Context, w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: rel, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		switch {
		case st.IsDir():
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			return tw.WriteHeader(h)
		case st.Mode().IsRegular():
			h.Typeflag, h.Size = tar.TypeReg, st.Size()
		default:
			return fmt.Errorf("%s is neither a file nor a directory", name)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(tw, f)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// padInodeBitmaps sets the bits of each group's inode bitmap that stand for no inode, as ext4 wants and tar2ext4 does
// not: harmless when mounted, but e2fsck calls it an error. Offsets: Documentation/filesystems/ext4 of the kernel.
func padInodeBitmaps(f *os.File) error {
	const block = 4096
	sb := make([]byte, 1024)
	if _, err := f.ReadAt(sb, 1024); err != nil {
		return err
	}
	word := func(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	blocks, blocksPerGroup, inodesPerGroup := word(sb, 0x4), word(sb, 0x20), word(sb, 0x28)
	if binary.LittleEndian.Uint16(sb[0x38:]) != 0xef53 || word(sb, 0x18) != 2 || blocksPerGroup == 0 || inodesPerGroup > 8*block {
		return errors.New("not an ext4 with blocks of 4 KiB")
	}
	groups := (blocks + blocksPerGroup - 1) / blocksPerGroup
	table := make([]byte, groups*32)
	if _, err := f.ReadAt(table, block); err != nil {
		return err
	}
	bitmap := make([]byte, block)
	for g := range groups {
		at := int64(word(table, int(g)*32+4)) * block
		if _, err := f.ReadAt(bitmap, at); err != nil {
			return err
		}
		for i := inodesPerGroup; i < 8*block; i++ {
			bitmap[i/8] |= 1 << (i % 8)
		}
		if _, err := f.WriteAt(bitmap, at); err != nil {
			return err
		}
	}
	return nil
}
