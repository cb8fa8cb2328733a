package crashtest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/engine"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vm"
)

// The image and the kernel that every world has.
var (
	imageDigest  = "sha256:" + strings.Repeat("1", 64)
	kernelDigest = "sha256:" + strings.Repeat("2", 64)
)

var made struct {
	sync.Mutex
	dir string
}

// template is a state directory that a daemon left which made nothing but its database. It is there until TestMain ends.
func template(t testing.TB) string {
	made.Lock()
	defer made.Unlock()
	if made.dir != "" {
		return made.dir
	}
	dir, err := os.MkdirTemp("", "banger-crash-template-")
	if err == nil {
		err = errors.Join(os.Mkdir(filepath.Join(dir, "state"), 0o700), fill(paths.Under(filepath.Join(dir, "state"))), fillSource(filepath.Join(dir, "source")))
	}
	if err != nil {
		t.Fatal(err)
	}
	made.dir = dir
	return dir
}

func removeTemplate() {
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
}

func fill(p paths.Paths) error {
	ctx := context.Background()
	if err := p.Make(ctx); err != nil {
		return err
	}
	w := &world{k: newMachine(), paths: p}
	d, err := daemon.Assemble(ctx, p, config.Default(), slog.New(slog.DiscardHandler), daemon.Host{
		Guest: guest, Drivers: w.drivers, Processes: w.k.Host, BootID: "template", Limits: engine.Limits{},
	})
	if err != nil {
		return err
	}
	defer d.Close()
	i := vm.Image{Name: vm.DefaultImage, Digest: imageDigest, CreatedAt: time.Unix(1, 0).UTC(), Source: "mmdebstrap bookworm"}
	k := vm.Kernel{Name: vm.DefaultKernel, Digest: kernelDigest, Release: "6.12.1", CreatedAt: time.Unix(1, 0).UTC(), Source: "apt:x"}
	imageDir, kernelDir := filepath.Join(p.Images(), imageDigest[7:]), filepath.Join(p.Kernels(), kernelDigest[7:])
	return errors.Join(
		os.MkdirAll(imageDir, 0o755), os.MkdirAll(filepath.Join(kernelDir, "boot"), 0o755),
		os.WriteFile(filepath.Join(imageDir, "root.ext4"), []byte("root"), 0o600), writeJSON(filepath.Join(imageDir, "image.json"), i),
		os.WriteFile(filepath.Join(kernelDir, "vmlinux"), []byte("vmlinux"), 0o600), writeJSON(filepath.Join(kernelDir, "kernel.json"), k),
		os.WriteFile(filepath.Join(kernelDir, "modules.ext4"), nil, 0o600), os.WriteFile(filepath.Join(kernelDir, "boot", "order"), nil, 0o600),
		d.Store.PutImage(ctx, i), d.Store.PutKernel(ctx, k),
		os.Remove(filepath.Join(p.State, "ballast")), // each daemon makes its own
	)
}

var guest = kernel.Guest{Key: "banger-guest", Binary: func() ([]byte, error) { return []byte("banger-guest"), nil }}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	return errors.Join(err, os.WriteFile(path, b, 0o600))
}

// imageSteps build an image of one file.
func imageSteps() *image.Steps {
	return &image.Steps{
		Bootstrap: func(_ context.Context, packages []string, w io.Writer) error {
			body := strings.Join(packages, " ")
			t := tar.NewWriter(w)
			err := t.WriteHeader(&tar.Header{Name: "./packages", Mode: 0o644, Size: int64(len(body))})
			_, werr := io.WriteString(t, body)
			return errors.Join(err, werr, t.Close())
		},
		Unpack: func(_ context.Context, r io.Reader, tree string) error {
			b, err := io.ReadAll(r)
			return errors.Join(err, os.Mkdir(filepath.Join(tree, "etc"), 0o755), os.WriteFile(filepath.Join(tree, "packages"), b, 0o600))
		},
		Settle: func(_ context.Context, root string, _ bool) (string, error) {
			f, err := os.OpenFile(root, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return "", err
			}
			_, err = f.WriteString("settled\n")
			return "/sbin/init", errors.Join(err, f.Close())
		},
		Format: func(_ context.Context, _, root string) error { return os.WriteFile(root, []byte("root"), 0o600) },
	}
}
