// Package image keeps root file systems by digest and builds them from Debian packages.
//
// An image is a directory named by the sha256 of its tar stream, holding root.ext4, which all VMs of the image share
// and nothing ever writes, and image.json. Nothing of ours is put into an image: the guest agent comes with the
// initramfs. The package must not know VMs; who stands on an image is told to it (Config.Pinned).
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"banger/internal/catalog"
	"banger/internal/hold"
	"banger/internal/vm"
)

// Records is where images are remembered: internal/store. The lookups fail with vm.CodeNotFound.
type Records interface {
	PutImage(ctx context.Context, i vm.Image) error
	Images(ctx context.Context) ([]vm.Image, error)
	ImageByName(ctx context.Context, name string) (vm.Image, error)
	ImageByDigest(ctx context.Context, digest string) (vm.Image, error)
	// DeleteImage removes a name in one transaction, unless VMs are of the digest: it returns their names then. last says
	// that no other name has the digest.
	DeleteImage(ctx context.Context, name, digest string) (users []string, last bool, err error)
	// AddImage is PutImage for a name that none has: vm.CodeExists.
	AddImage(ctx context.Context, i vm.Image) error
	// ImageUsers are the names and the VMs that have a digest.
	ImageUsers(ctx context.Context, digest string) (names, vms []string, err error)
}

// Config wires a Library.
type Config struct {
	Dir      string   // where images lie; made when missing
	Records  Records  // needed
	Packages []string // Debian packages added to each build
	Mirror   string   // of builds; "" = as the host's apt is configured. A URL, or lines for sources.list
	Steps    *Steps   // nil = the host's mmdebstrap, tar and mkfs.ext4

	// Pinned lists the digests that VMs stand on, whether or not an image of a name has them still: a rebuilt image
	// gives its name away, not its VMs' disks. It fails unless the list is whole. Without one, or when it fails,
	// Reconcile removes no image: a disk that stands on a removed one is lost.
	Pinned func(ctx context.Context) ([]string, error)

	// Unnamed knows what may lie on the disk without a name. nil: everything there may.
	Unnamed catalog.Unnamed
}

// Library is the images of one daemon. Its methods can be called at the same time.
type Library struct {
	cfg   Config
	tools tools
	uses  hold.Set // of digests: by VMs and builds before their record is committed

	mu      sync.Mutex
	flights map[string]*flight // by image name
	busy    map[string]bool    // names in cfg.Dir that a running build owns
	running sync.WaitGroup     // flights, the cancelled ones that still clean up included
	closed  bool
}

// Steps are the parts of a build for which the host needs programs, and often a network. All are needed.
type Steps struct {
	Bootstrap func(ctx context.Context, packages []string, tar io.Writer) error // writes the tree as a tar stream
	Unpack    func(ctx context.Context, tar io.Reader, tree string) error
	Format    func(ctx context.Context, tree, root string) error // makes the file root a disk with the content of tree
	// Settle makes a disk from elsewhere one that VMs can stand on, and returns the path of its init; cleared = without what makes
	// a machine itself.
	Settle func(ctx context.Context, root string, cleared bool) (init string, err error)
}

func toolsOf(s *Steps) tools {
	if s == nil {
		return hostTools()
	}
	t := tools{unpack: s.Unpack, format: s.Format, ready: func(kind) error { return nil }, settle: s.Settle, remove: remove}
	t.bootstrap = func(ctx context.Context, r recipe, _, _ string, tar io.Writer, _ func(string)) error {
		return s.Bootstrap(ctx, r.packages, tar)
	}
	return t
}

// New returns the library in c.Dir. It does no I/O.
func New(c Config) *Library {
	return &Library{cfg: c, tools: toolsOf(c.Steps), flights: map[string]*flight{}, busy: map[string]bool{}}
}

// List returns all images by name.
func (l *Library) List(ctx context.Context) ([]vm.Image, error) { return l.cfg.Records.Images(ctx) }

// Get returns the image with a name or a digest ("sha256:…"). A digest is found as long as the image lies on disk, even
// when its name has gone to a newer build. vm.CodeNotFound otherwise.
func (l *Library) Get(ctx context.Context, nameOrDigest string) (vm.Image, error) {
	if !strings.HasPrefix(nameOrDigest, digestPrefix) {
		return l.cfg.Records.ImageByName(ctx, nameOrDigest)
	}
	img, err := l.cfg.Records.ImageByDigest(ctx, nameOrDigest)
	if vm.CodeOf(err) != vm.CodeNotFound {
		return img, err
	}
	onDisk, diskErr := l.read(nameOrDigest)
	if errors.Is(diskErr, os.ErrNotExist) {
		return vm.Image{}, err
	}
	return onDisk, diskErr
}

// Known refuses a name that is neither an image's nor a recipe's, with vm.CodeNotFound.
func (l *Library) Known(ctx context.Context, name string) error {
	if _, ok := recipeNamed(name); ok {
		return nil
	}
	_, err := l.present(ctx, name)
	if vm.CodeOf(err) == vm.CodeNotFound {
		return vm.Errorf(vm.CodeNotFound, "no image named %q", name).WithHint("%s", l.known(ctx, name))
	}
	return err
}

// Ensure returns the image with that name. One that is missing is built when the name is a recipe's; else the error is
// vm.CodeNotFound, with a hint of what there is.
func (l *Library) Ensure(ctx context.Context, name string, report vm.Report) (vm.Image, error) {
	img, err := l.present(ctx, name)
	if err == nil || vm.CodeOf(err) != vm.CodeNotFound {
		return img, err
	}
	if err := l.Known(ctx, name); err != nil {
		return vm.Image{}, err
	}
	return l.Build(ctx, BuildOptions{Name: name}, report)
}

// RootPath is the ext4 file of an image. It is shared: open it read-only.
func (l *Library) RootPath(digest string) string {
	return filepath.Join(l.dir(digest), rootFile)
}

// Close cancels the builds that still run and waits until they have cleaned up. Afterwards no new one begins
// (vm.CodeCanceled).
func (l *Library) Close() {
	l.mu.Lock()
	l.closed = true
	for _, f := range l.flights {
		f.cancel()
	}
	l.mu.Unlock()
	l.running.Wait()
}

const (
	digestPrefix = "sha256:"
	rootFile     = "root.ext4"
	recordFile   = "image.json"
)

func (l *Library) dir(digest string) string {
	return filepath.Join(l.cfg.Dir, strings.TrimPrefix(digest, digestPrefix))
}

// read takes the image's description from beside its root.
func (l *Library) read(digest string) (vm.Image, error) {
	path := filepath.Join(l.dir(digest), recordFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return vm.Image{}, fmt.Errorf("read image %s: %w", digest, err)
	}
	var img vm.Image
	if err := json.Unmarshal(b, &img); err != nil {
		return vm.Image{}, vm.Errorf(vm.CodeCorrupt, "read %s: %w", path, err)
	}
	if img.Digest != digest {
		return vm.Image{}, vm.Errorf(vm.CodeCorrupt, "%s describes image %q", path, img.Digest)
	}
	return img, nil
}

// present returns an image that is remembered and lies on disk; vm.CodeNotFound when one of the two is not so.
func (l *Library) present(ctx context.Context, name string) (vm.Image, error) {
	img, err := l.cfg.Records.ImageByName(ctx, name)
	if err != nil {
		return vm.Image{}, err
	}
	if _, err := os.Stat(l.RootPath(img.Digest)); err != nil {
		return vm.Image{}, vm.Errorf(vm.CodeNotFound, "image %s: its file is gone: %w", name, err)
	}
	return img, nil
}

// known names the images and recipes there are, for a hint, and first the one that was probably meant.
func (l *Library) known(ctx context.Context, meant string) string {
	recipes := recipeNames()
	hint := "can be built: " + strings.Join(recipes, ", ")
	var names []string
	if images, err := l.cfg.Records.Images(ctx); err == nil && len(images) > 0 {
		for _, i := range images {
			names = append(names, i.Name)
		}
		hint = "images: " + strings.Join(names, ", ") + "; " + hint
	}
	if near := vm.Nearest(meant, append(names, recipes...)); near != "" {
		return "did you mean " + near + "? " + hint
	}
	return hint
}
