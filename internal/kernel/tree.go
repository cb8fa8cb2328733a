package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"banger/internal/compressed"
	"banger/internal/vm"
)

// releasePattern is what uname -r can be; it becomes the name of a directory.
var releasePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$`)

// The files of a module directory that the kernel's build made. All others are depmod's, and are made anew.
var buildFiles = map[string]bool{"modules.order": true, "modules.builtin": true, "modules.builtin.modinfo": true}

// tree collects the modules of one kernel below DIR/lib/modules/RELEASE (as depmod wants them), decompressed: under
// emulation a guest would need seconds for that, and not every modprobe can. Decompression runs beside the reading.
type tree struct {
	dir     string
	root    *os.Root
	release string
	added   bool // at least one module or build file
	work    *errgroup.Group
	ctx     context.Context // of work: ends with the first error

	maxFiles int   // that are taken
	maxBytes int64 // decompressed, of all files together

	mu    sync.Mutex
	files int
	bytes int64
	sums  map[string]string // path below lib/modules/RELEASE → sha256 hex of the decompressed content
}

// Bounds of a tree, some four times what a distribution's full kernel has.
const (
	maxTreeFiles = 20_000
	maxTreeBytes = 4 << 30
)

func newTree(ctx context.Context, dir string) (*tree, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	// A kmod of a merged-usr distribution looks for DIR/usr/lib/modules.
	if err := root.Symlink(".", "usr"); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	t := &tree{dir: dir, root: root, maxFiles: maxTreeFiles, maxBytes: maxTreeBytes, sums: map[string]string{}}
	t.work, t.ctx = errgroup.WithContext(ctx)
	t.work.SetLimit(runtime.NumCPU())
	return t, nil
}

// wait returns when every file that was added is written, with the first error.
func (t *tree) wait() error { return t.work.Wait() }

func (t *tree) close() {
	_ = t.work.Wait()
	_ = t.root.Close() // only read from
}

// modules is the directory that holds the indexes and kernel/.
func (t *tree) modules() string { return filepath.Join(t.dir, "lib/modules", t.release) }

// setRelease fixes the release the tree is for; a second, different one is an error.
func (t *tree) setRelease(release string) error {
	if !releasePattern.MatchString(release) {
		return vm.Errorf(vm.CodeInvalid, "%q is not a kernel release", release)
	}
	if t.release != "" && t.release != release {
		return vm.Errorf(vm.CodeInvalid, "modules of two kernels, %s and %s", t.release, release)
	}
	if t.release == "" {
		t.release = release
		return t.root.MkdirAll(path.Join("lib/modules", release), 0o755)
	}
	return nil
}

// moduleName splits a file name off its compression: "x.ko.xz" → "x.ko", true. ok is false for what is no module.
func moduleName(name string) (plain string, compressed, ok bool) {
	for _, suffix := range []string{".xz", ".zst", ".gz"} {
		if s, found := strings.CutSuffix(name, suffix); found {
			return s, true, strings.HasSuffix(s, ".ko")
		}
	}
	return name, false, strings.HasSuffix(name, ".ko")
}

// add takes one file of the module directory; name is relative to it. What the kernel's build did not make is passed
// over. The content is read before add returns, and on the disk when wait has.
func (t *tree) add(name string, r io.Reader) error {
	if err := t.ctx.Err(); err != nil {
		return context.Cause(t.ctx)
	}
	name = path.Clean("/" + name)[1:]
	plain, compressed, ok := moduleName(name)
	if !ok && !buildFiles[name] {
		return nil
	}
	if err := t.count(1, 0); err != nil {
		return err
	}
	content, err := readLimited(r, maxModule)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	t.added = true
	t.work.Go(func() error {
		if !compressed {
			return t.put(plain, content)
		}
		inflated, err := inflate(content)
		if err != nil {
			return vm.Errorf(vm.CodeInvalid, "decompress %s: %w", name, err)
		}
		return t.put(plain, inflated)
	})
	return nil
}

// count holds the whole within its bounds.
func (t *tree) count(files int, bytes int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files += files
	t.bytes += bytes
	if t.files > t.maxFiles {
		return vm.Errorf(vm.CodeInvalid, "a kernel with more than %d files of modules", t.maxFiles)
	}
	if t.bytes > t.maxBytes {
		return vm.Errorf(vm.CodeInvalid, "a kernel with more than %d bytes of modules", t.maxBytes)
	}
	return nil
}

func inflate(b []byte) ([]byte, error) {
	d, err := compressed.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	return readLimited(d, maxModule)
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

func (t *tree) put(name string, content []byte) error {
	if err := t.count(0, int64(len(content))); err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	t.mu.Lock()
	_, twice := t.sums[name]
	t.sums[name] = hex.EncodeToString(sum[:])
	t.mu.Unlock()
	if twice {
		return vm.Errorf(vm.CodeInvalid, "module %s is there twice", name)
	}
	full := path.Join("lib/modules", t.release, name)
	if err := t.root.MkdirAll(path.Dir(full), 0o755); err != nil {
		return err
	}
	return t.root.WriteFile(full, content, 0o644)
}

// digest names a kernel by its content: the release, vmlinux, and each file of the tree with its path, in order. It
// does not depend on how these are packed, so a new way of building the disk keeps the digests.
func digest(release, vmlinuxSum string, sums map[string]string) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "release %s\nvmlinux %s\n", release, vmlinuxSum)
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		_, _ = fmt.Fprintf(h, "module %s %q\n", sums[name], name)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func sumFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
