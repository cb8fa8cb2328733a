package kernel

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"banger/internal/vm"
)

// memRecords is Records in memory.
type memRecords struct {
	mu      sync.Mutex
	rows    map[string]vm.Kernel
	users   map[string][]string // VMs by digest
	fail    error               // of PutKernel
	putting func()              // called before a kernel is put, if not nil
}

func (m *memRecords) PutKernel(_ context.Context, k vm.Kernel) error {
	if m.putting != nil {
		m.putting()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.rows == nil {
		m.rows = map[string]vm.Kernel{}
	}
	m.rows[k.Name] = k
	return nil
}

func (m *memRecords) DeleteKernel(_ context.Context, name, digest string) (users []string, last bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if users := m.users[digest]; len(users) > 0 {
		return users, false, nil
	}
	if m.rows[name].Digest != digest {
		return nil, false, vm.Errorf(vm.CodeConflict, "it was deleted or replaced meanwhile")
	}
	delete(m.rows, name)
	for _, k := range m.rows {
		if k.Digest == digest {
			return nil, false, nil
		}
	}
	return nil, true, nil
}

func (m *memRecords) AddKernel(ctx context.Context, k vm.Kernel) error {
	if _, err := m.KernelByName(ctx, k.Name); err == nil {
		return vm.Errorf(vm.CodeExists, "a kernel named %s exists", k.Name)
	}
	return m.PutKernel(ctx, k)
}

func (m *memRecords) KernelUsers(ctx context.Context, digest string) (names, vms []string, err error) {
	all, err := m.Kernels(ctx)
	for _, k := range all {
		if k.Digest == digest {
			names = append(names, k.Name)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return names, m.users[digest], err
}

func (m *memRecords) Kernels(context.Context) ([]vm.Kernel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []vm.Kernel
	for _, k := range m.rows {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b vm.Kernel) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (m *memRecords) find(match func(vm.Kernel) bool) (vm.Kernel, error) {
	all, _ := m.Kernels(context.Background())
	if i := slices.IndexFunc(all, match); i >= 0 {
		return all[i], nil
	}
	return vm.Kernel{}, vm.Errorf(vm.CodeNotFound, "no such kernel")
}

func (m *memRecords) KernelByName(_ context.Context, name string) (vm.Kernel, error) {
	return m.find(func(k vm.Kernel) bool { return k.Name == name })
}

func (m *memRecords) KernelByDigest(_ context.Context, digest string) (vm.Kernel, error) {
	return m.find(func(k vm.Kernel) bool { return k.Digest == digest })
}

func newLibrary(t *testing.T) (*Library, *memRecords) {
	t.Helper()
	rows := &memRecords{}
	dir := t.TempDir()
	return New(Config{
		Dir: dir + "/kernels", InitramfsDir: dir + "/cache/initramfs", Guest: guestOf([]byte("\x7fELF guest"), nil), Records: rows,
	}), rows
}
