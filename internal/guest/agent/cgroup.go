package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Our part of the cgroup tree. The agent beside an image's init lives in its own, where systemd leaves it alone; every
// exec gets one below execCgroup. They bound how many processes one exec, and all of them, can make, and share the
// processor between them: next to a fork bomb the agent still answers, and another exec still runs.
const (
	cgroupMount = "/sys/fs/cgroup"
	ownCgroup   = cgroupMount + "/banger"
	agentCgroup = ownCgroup + "/agent"
	execCgroup  = ownCgroup + "/exec"
)

// spareCgroups is how many empty cgroups are kept for the next execs: making one costs a millisecond under emulation.
const spareCgroups = 8

// cgroups hands out cgroups for execs. A nil *cgroups hands out none.
type cgroups struct {
	each string // the limit of tasks of one exec, as pids.max takes it

	mu        sync.Mutex
	made      int
	free      []*cgroup
	lingering []*cgroup // the exec is over, but something of it lives on
}

// cgroup is one exec's.
type cgroup struct {
	path   string
	dir    *os.File // for clone(CLONE_INTO_CGROUP)
	events *os.File // cgroup.events, kept open: it is read after every exec
}

// makeCgroup makes dir, below ownCgroup, and opens it.
func makeCgroup(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	delegate(cgroupMount)
	delegate(ownCgroup)
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// delegate gives the children of dir the controllers we use; one by one, as a kernel may lack either.
func delegate(dir string) {
	for _, controller := range []string{"+pids", "+cpu"} {
		_ = os.WriteFile(path.Join(dir, "cgroup.subtree_control"), []byte(controller), 0)
	}
}

// newCgroups prepares the tree.
func newCgroups() (*cgroups, error) {
	dir, err := makeCgroup(execCgroup)
	if err != nil {
		return nil, err
	}
	_ = dir.Close()
	delegate(execCgroup)
	var mem unix.Sysinfo_t
	if err := unix.Sysinfo(&mem); err != nil {
		return nil, fmt.Errorf("find the guest's memory: %w", err)
	}
	all := taskLimit(readInt("/proc/sys/kernel/threads-max"), readInt("/proc/sys/kernel/pid_max"), mem.Totalram*uint64(mem.Unit))
	if err := os.WriteFile(path.Join(execCgroup, "pids.max"), []byte(strconv.Itoa(all)), 0); err != nil {
		return nil, fmt.Errorf("limit the processes of all execs: %w", err)
	}
	return &cgroups{each: strconv.Itoa(all / 4 * 3)}, nil
}

// taskMemory is what the smallest process takes, half as much again: the kernel's own limit lets a bomb of shells fill
// the memory, and a guest that thrashes answers nobody.
const taskMemory = 256 << 10

// taskLimit leaves a fifth of what the kernel allows to the agent and the image's own services; memory in bytes.
func taskLimit(threadsMax, pidMax int, memory uint64) int {
	return max(min(threadsMax/5*4, pidMax/5*4, int(memory/taskMemory)), 64)
}

func readInt(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// take returns an empty cgroup.
func (c *cgroups) take() (*cgroup, error) {
	if c == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.free) == 0 {
		c.sweep()
	}
	if n := len(c.free); n > 0 {
		g := c.free[n-1]
		c.free = c.free[:n-1]
		return g, nil
	}
	g := &cgroup{path: path.Join(execCgroup, strconv.Itoa(c.made))}
	if err := os.Mkdir(g.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	err := os.WriteFile(path.Join(g.path, "pids.max"), []byte(c.each), 0)
	if err != nil {
		return nil, fmt.Errorf("limit the processes of an exec: %w", err)
	}
	if g.dir, err = os.Open(g.path); err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	if g.events, err = os.Open(path.Join(g.path, "cgroup.events")); err != nil {
		_ = g.dir.Close()
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	c.made++
	return g, nil
}

// put takes g back when its exec is over.
func (c *cgroups) put(g *cgroup) {
	if c == nil || g == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lingering = append(c.lingering, g)
	c.sweep()
}

// sweep makes those lingering cgroups free (or, enough being free, removes them) in which nothing lives any more.
func (c *cgroups) sweep() {
	still := c.lingering[:0]
	for _, g := range c.lingering {
		switch {
		case g.populated():
			still = append(still, g)
		case len(c.free) < spareCgroups:
			c.free = append(c.free, g)
		default:
			_ = errors.Join(g.events.Close(), g.dir.Close(), os.Remove(g.path))
		}
	}
	c.lingering = still
}

func (g *cgroup) populated() bool {
	var b [256]byte
	n, err := g.events.ReadAt(b[:], 0)
	return err != nil && !errors.Is(err, io.EOF) || !bytes.Contains(b[:n], []byte("populated 0"))
}

// kill ends everything in g, whatever session or process group it went to.
func (g *cgroup) kill() error {
	return os.WriteFile(path.Join(g.path, "cgroup.kill"), []byte("1"), 0)
}
