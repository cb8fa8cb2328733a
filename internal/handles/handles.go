// Package handles keeps VMHandles, the transient kernel objects and processes that serve VMs: a memory cache in front
// of handles.json in each VM's directory, and their rediscovery from the OS.
//
// What it returns after a restart is a hint until verified; a missing, empty, truncated, corrupt or foreign scratch file
// is normal and reads as "nothing known". Nothing of this may enter the database.
package handles

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"banger/internal/act"
	"banger/internal/host/proc"
	"banger/internal/vm"
)

// FileName is the scratch file in a VM's directory.
const FileName = "handles.json"

// file is the scratch file: the handles, and whose they are, so that a file copied from another VM is not believed.
type file struct {
	VM vm.ID `json:"vm"`
	vm.VMHandles
}

// maxFile bounds what is read of a scratch file; a real one has a few hundred bytes.
const maxFile = 64 << 10

// Cache is the mutex-guarded map in front of the scratch files.
type Cache struct {
	mu sync.Mutex
	m  map[vm.ID]entry
}

type entry struct {
	vm.VMHandles
	unproven bool // read from the file, and the OS knows no process of the VM
}

// NewCache makes an empty cache.
func NewCache() *Cache { return &Cache{m: map[vm.ID]entry{}} }

// Get returns what is cached for a VM; zero when nothing is. Its process may be a dead one, or a stranger's that the file
// names: whoever looks at a process or ends it wants Process.
func (c *Cache) Get(id vm.ID) vm.VMHandles {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[id].VMHandles
}

// Process is the VM's process as it was launched, or found by the OS; zero when neither ever was. That a scratch file names
// a process proves nothing: pid, start time and boot id in it may be any process's.
func (c *Cache) Process(id vm.ID) proc.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[id]
	if e.unproven {
		return proc.Identity{}
	}
	return proc.Identity{PID: e.PID, StartTime: e.StartTime, BootID: e.BootID}
}

// Set writes the scratch file in dir, then the cache. When the file cannot be written the cache is left as it was.
func (c *Cache) Set(ctx context.Context, id vm.ID, dir string, h vm.VMHandles) error {
	b, err := json.MarshalIndent(file{id, h}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the handles of VM %s: %w", id, err)
	}
	err = act.Record(ctx, "handles", func() error { return replace(dir, append(b, '\n')) })
	if path := filepath.Join(dir, FileName); err != nil && isDir(path) {
		return vm.Errorf(vm.CodeConflict, "write the handles of VM %s: %s is a directory, which banger did not make", id, path).
			WithHint("move it away")
	}
	if err != nil {
		return fmt.Errorf("write the handles of VM %s: %w", id, err)
	}
	c.seed(id, entry{VMHandles: h})
	return nil
}

// replace puts the scratch file in the place of the one there is: whoever reads it sees the one or the other, whole, whatever
// the host dies of meanwhile.
func replace(dir string, content []byte) error {
	f, err := os.CreateTemp(dir, "."+FileName+"*")
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, FileName))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}

// Clear forgets a VM's handles, file first. Clearing twice is success. A directory of the file's name holds no handles; it is
// not the run's, and stays, unless it is empty.
func (c *Cache) Clear(ctx context.Context, id vm.ID, dir string) error {
	err := act.Record(ctx, "handles.remove", func() error { return os.Remove(filepath.Join(dir, FileName)) })
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove the handles of VM %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, id)
	return nil
}

func (c *Cache) seed(id vm.ID, e entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[id] = e
}

// Read returns what the scratch file in dir says about VM id; zero when it is missing, unreadable or another's.
func Read(id vm.ID, dir string) vm.VMHandles {
	path := filepath.Join(dir, FileName)
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxFile {
		return vm.VMHandles{}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return vm.VMHandles{}
	}
	return parse(id, b)
}

func parse(id vm.ID, b []byte) vm.VMHandles {
	var f file
	if json.Unmarshal(b, &f) != nil || f.VM != id || f.PID < 0 {
		return vm.VMHandles{}
	}
	return f.VMHandles
}

// Finder looks for the VM's live VMM: vmm.Driver.Find.
type Finder func(ctx context.Context) (proc.Identity, bool, error)

// Rediscover finds out what serves a VM now, from the scratch file and the OS, and seeds the cache with it. A live
// process that is proven to be the VM's beats the file. With no live process the file's contents are returned all the same:
// clean-up needs them. Handles of an earlier boot name nothing that can still exist, so only a live find survives one.
func (c *Cache) Rediscover(ctx context.Context, id vm.ID, dir, bootID string, find Finder) (h vm.VMHandles, alive bool, err error) {
	h = Read(id, dir)
	live, alive, err := find(ctx)
	if err != nil {
		return h, false, fmt.Errorf("look for the VMM of VM %s: %w", id, err)
	}
	if !alive {
		c.seed(id, entry{h, true})
		return h, false, nil
	}
	if h.BootID != bootID {
		h = vm.VMHandles{}
	}
	was := h
	h = WithProcess(h, live)
	c.seed(id, entry{VMHandles: h}) // whatever becomes of the file: a machine that lives must not be taken for dead where the disk is full
	if h == was {
		return h, true, nil
	}
	return h, true, c.Set(ctx, id, dir, h)
}

// WithProcess returns h with the process set to p.
func WithProcess(h vm.VMHandles, p proc.Identity) vm.VMHandles {
	h.PID, h.StartTime, h.BootID = p.PID, p.StartTime, p.BootID
	return h
}
