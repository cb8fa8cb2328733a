package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/host/cgroup"
	"banger/internal/host/proc"
	"banger/internal/store"
	"banger/internal/testhost"
	"banger/internal/vm"
)

// newStandInPlace is a place whose VMs are stand-ins. It has an image and a kernel of a few bytes.
func newStandInPlace(t *testing.T) place {
	t.Helper()
	testhost.Need(t, testhost.Guest, testhost.Ext4)
	return standInPlaceIn(t, testhost.Dir(t))
}

func standInPlaceIn(t *testing.T, root string) place {
	t.Helper()
	testhost.Leaks(t, root)
	p := newPlaceIn(t, root)
	p.env = append(p.env, standInEnv+"=1")
	t.Cleanup(func() { // before the daemon is stopped: it sees them end, but may be stopped before it is done with what they held
		for _, id := range p.machines(t) {
			_ = proc.Signal(id, unix.SIGKILL)
			must(t, proc.Wait(context.Background(), id))
		}
		left, _ := os.ReadDir(p.VMs())
		for _, e := range left {
			must(t, cgroup.Open().Remove(context.Background(), vm.ID(e.Name())))
		}
	})
	p.seed(t)
	return p
}

// seed puts an image and a kernel there, as one that was built and one that was imported.
func (p place) seed(t *testing.T) {
	t.Helper()
	image := vm.Image{Name: "img", Digest: "sha256:" + strings.Repeat("1a", 32), Size: 4096, CreatedAt: time.Now(), Source: "a test"}
	kernel := vm.Kernel{Name: "kern", Digest: "sha256:" + strings.Repeat("2b", 32), Release: "6.12", CreatedAt: time.Now(), Source: "a test"}
	imageDir, kernelDir := filepath.Join(p.Images(), image.Digest[7:]), filepath.Join(p.Kernels(), kernel.Digest[7:])
	imageJSON, err := json.Marshal(image)
	must(t, err)
	kernelJSON, err := json.Marshal(kernel)
	must(t, err)
	for path, content := range map[string][]byte{
		filepath.Join(imageDir, "root.ext4"):     make([]byte, 4096),
		filepath.Join(imageDir, "image.json"):    imageJSON,
		filepath.Join(kernelDir, "vmlinux"):      []byte("vmlinux"),
		filepath.Join(kernelDir, "modules.ext4"): []byte("modules"),
		filepath.Join(kernelDir, "boot/order"):   nil,
		filepath.Join(kernelDir, "kernel.json"):  kernelJSON,
		p.Config:                                 []byte("[vm]\nimage = \"img\"\nkernel = \"kern\"\ndisk = \"copy\"\ndisk_size = \"16M\"\nnetwork = \"none\"\nmemory = \"128M\"\n"),
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, content, 0o600))
	}
	db, err := store.Open(t.Context(), p.Database())
	must(t, err)
	must(t, errors.Join(db.PutImage(t.Context(), image), db.PutKernel(t.Context(), kernel), db.Close()))
}

// machines are the live processes of VMs of this place.
func (p place) machines(t *testing.T) []proc.Identity {
	t.Helper()
	found, err := proc.Find(func(args []string) bool {
		return len(args) == argCount && strings.HasPrefix(args[argAPI], p.Run+"/")
	})
	must(t, err)
	return found
}

// machineOf is the process of one VM.
func (p place) machineOf(t *testing.T, r vm.VMRecord) proc.Identity {
	t.Helper()
	found, err := proc.Find(func(args []string) bool { return len(args) == argCount && args[argAPI] == r.Runtime.APISockPath })
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("VM %s has processes %+v", r.Name, found)
	}
	return found[0]
}

// fails runs a command that must fail as banger itself fails, and returns what it said.
func (p place) fails(t *testing.T, args ...string) string {
	t.Helper()
	cmd := p.command(t, "banger", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 125 {
		t.Errorf("banger %v: exit status %d (%v), want 125: %s", args, code, err, &stderr)
	}
	if !strings.HasPrefix(stderr.String(), "banger: ") || strings.Contains(stderr.String(), "goroutine ") {
		t.Errorf("banger %v says %q", args, &stderr)
	}
	return stderr.String()
}

func (p place) show(t *testing.T, name string) (v api.VMView) {
	t.Helper()
	must(t, json.Unmarshal(p.run(t, "banger", "vm", "show", "--json", name), &v))
	return v
}

func (p place) list(t *testing.T) (all []vm.VMRecord) {
	t.Helper()
	must(t, json.Unmarshal(p.run(t, "banger", "vm", "list", "--json"), &all))
	return all
}

// answers has the guest of a VM run a command.
func (p place) answers(t *testing.T, name string) {
	t.Helper()
	if out := p.run(t, "banger", "vm", "exec", name, "--", "still", "here"); string(out) != "still here\n" {
		t.Errorf("VM %s answers %q", name, out)
	}
}

// killDaemon ends the daemon as a crash does, and returns when it has.
func (p place) killDaemon(t *testing.T) {
	t.Helper()
	var s api.Status
	must(t, json.Unmarshal(p.run(t, "banger", "daemon", "status", "--json"), &s))
	id, err := proc.Identify(s.PID)
	must(t, err)
	must(t, proc.Signal(id, unix.SIGKILL))
	must(t, proc.Wait(t.Context(), id))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A daemon that died finds stand-ins as it finds QEMU: what the other tests stand on.
func TestStandIns(t *testing.T) {
	p := newStandInPlace(t)
	p.run(t, "banger", "vm", "create", "--name", "web")
	p.run(t, "banger", "vm", "start", "web")
	p.answers(t, "web")
	before := p.show(t, "web")
	if id := p.machineOf(t, before.VMRecord); before.Handles.PID != id.PID {
		t.Errorf("handles %+v, process %+v", before.Handles, id)
	}
	p.killDaemon(t)
	p.answers(t, "web")
	if after := p.show(t, "web"); after.Handles != before.Handles || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	p.run(t, "banger", "vm", "delete", "web")
	if left := p.machines(t); len(left) > 0 || len(p.list(t)) > 0 {
		t.Errorf("left: %+v", left)
	}
}

func status(t *testing.T, p place, into any) {
	t.Helper()
	must(t, json.Unmarshal(p.run(t, "banger", "daemon", "status", "--json"), into))
}
