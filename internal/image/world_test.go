package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"banger/internal/vm"
)

// memory is Records in a map, strict about names.
type memory struct {
	mu      sync.Mutex
	images  map[string]vm.Image
	users   map[string][]string // VMs by digest
	putErr  error
	putting func() // called before an image is put, if not nil
}

func newMemory(images ...vm.Image) *memory {
	m := &memory{images: map[string]vm.Image{}}
	for _, i := range images {
		m.images[i.Name] = i
	}
	return m
}

func (m *memory) PutImage(ctx context.Context, i vm.Image) error {
	if m.putting != nil {
		m.putting()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(ctx.Err(), m.putErr); err != nil {
		return err
	}
	m.images[i.Name] = i
	return nil
}

func (m *memory) DeleteImage(_ context.Context, name, digest string) (users []string, last bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if users := m.users[digest]; len(users) > 0 {
		return users, false, nil
	}
	if m.images[name].Digest != digest {
		return nil, false, vm.Errorf(vm.CodeConflict, "it was deleted or replaced meanwhile")
	}
	delete(m.images, name)
	for _, i := range m.images {
		if i.Digest == digest {
			return nil, false, nil
		}
	}
	return nil, true, nil
}

func (m *memory) AddImage(ctx context.Context, i vm.Image) error {
	if _, err := m.ImageByName(ctx, i.Name); err == nil {
		return vm.Errorf(vm.CodeExists, "an image named %s exists", i.Name)
	}
	return m.PutImage(ctx, i)
}

func (m *memory) ImageUsers(ctx context.Context, digest string) (names, vms []string, err error) {
	all, err := m.Images(ctx)
	for _, i := range all {
		if i.Digest == digest {
			names = append(names, i.Name)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return names, m.users[digest], err
}

func (m *memory) Images(context.Context) ([]vm.Image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []vm.Image
	for _, i := range m.images {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b vm.Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (m *memory) find(what string, match func(vm.Image) bool) (vm.Image, error) {
	all, _ := m.Images(context.Background())
	if i := slices.IndexFunc(all, match); i >= 0 {
		return all[i], nil
	}
	return vm.Image{}, vm.Errorf(vm.CodeNotFound, "no image %s", what)
}

func (m *memory) ImageByName(_ context.Context, name string) (vm.Image, error) {
	return m.find(name, func(i vm.Image) bool { return i.Name == name })
}

func (m *memory) ImageByDigest(_ context.Context, digest string) (vm.Image, error) {
	return m.find(digest, func(i vm.Image) bool { return i.Digest == digest })
}

// builder stands in for the host's programs.
type builder struct {
	content atomic.Value  // string; what the image holds, so what its digest is
	builds  atomic.Int32  // calls of bootstrap
	started chan struct{} // gets one for each begun build, if not nil
	hold    chan struct{} // builds wait until it is closed, if not nil
	init    bool          // the tree has /sbin/init

	cleared atomic.Bool // what settle was told last

	bootstrapErr, unpackErr, formatErr, settleErr error
}

func (b *builder) tools() tools {
	return tools{bootstrap: b.bootstrap, unpack: b.unpack, format: b.format, ready: func(kind) error { return nil }, settle: b.settle, remove: func(_ context.Context, s string) error { return os.RemoveAll(s) }}
}

func (b *builder) bootstrap(ctx context.Context, r recipe, _, tmp string, w io.Writer, step func(string)) error {
	b.builds.Add(1)
	if err := os.WriteFile(filepath.Join(tmp, "scratch"), nil, 0o600); err != nil {
		return err
	}
	step("downloading packages")
	if b.started != nil {
		b.started <- struct{}{}
	}
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	content, _ := b.content.Load().(string)
	t := tar.NewWriter(w)
	body := content + strings.Join(r.packages, " ")
	err := errors.Join(t.WriteHeader(&tar.Header{Name: "./f", Mode: 0o644, Size: int64(len(body))}), second(t.Write([]byte(body))), t.Close())
	return errors.Join(b.bootstrapErr, err)
}

func (b *builder) unpack(_ context.Context, r io.Reader, tree string) error {
	if b.unpackErr != nil {
		return b.unpackErr
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("tar: unexpected end: %w", err)
	}
	if b.init {
		_ = os.Mkdir(filepath.Join(tree, "sbin"), 0o755)
		err = os.Symlink("/lib/systemd/systemd", filepath.Join(tree, "sbin/init"))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(tree, "f"), body, 0o600))
}

func (b *builder) format(_ context.Context, tree, root string) error {
	if b.formatErr != nil {
		return b.formatErr
	}
	body, err := os.ReadFile(filepath.Join(tree, "f"))
	return errors.Join(err, os.WriteFile(root, body, 0o600))
}

// settle notes what it was given beside the disk.
func (b *builder) settle(_ context.Context, root string, cleared bool) (string, error) {
	if b.settleErr != nil {
		return "", b.settleErr
	}
	b.cleared.Store(cleared)
	st, err := os.Stat(root)
	if err == nil && st.Size() == 0 {
		err = errors.New("the disk is empty")
	}
	if b.init {
		return "/sbin/init", err
	}
	return "", err
}

func newTest(t *testing.T) (*Library, *builder, *memory) {
	t.Helper()
	b, m := &builder{}, newMemory()
	l := New(Config{Dir: filepath.Join(t.TempDir(), "images"), Records: m})
	l.tools = b.tools()
	return l, b, m
}

func ls(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
