package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger/internal/handles"
	"banger/internal/plan"
	"banger/internal/vm"
)

// patience bounds how long a daemon may take to come to rest. One that never does is a finding; a slow host is not.
const patience = 20 * time.Second

// rest waits until the daemon has nothing more to do and the whole host is what the records say.
func (r *run) rest() error {
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	events, err := r.daemon.Engine.Events(ctx, "")
	if err != nil {
		return err
	}
	again := time.NewTicker(time.Millisecond) // a worker's last act comes after its last event
	defer again.Stop()
	for {
		resting := r.daemon.Engine.Resting()
		if err = r.consistent(); err == nil && resting || r.dead() {
			return nil // what the dead leave is for the next one
		}
		select {
		case <-ctx.Done():
			return err
		case <-r.died:
		case <-events:
		case <-again.C:
		}
	}
}

// consistent says all that differs between the records and the host.
func (r *run) consistent() error {
	records, err := r.records()
	if err != nil {
		return err
	}
	for _, v := range records {
		if why := r.unsettled(v); why != "" {
			return fmt.Errorf("VM %s is not at rest: %s", v.Name, why)
		}
	}
	images, err := r.daemon.Store.Images(context.Background())
	if err != nil {
		return err
	}
	kernels, err := r.daemon.Store.Kernels(context.Background())
	if err != nil {
		return err
	}
	digests := map[string]bool{}
	for _, i := range images {
		digests["images/"+i.Digest[7:]] = true
	}
	for _, k := range kernels {
		digests["kernels/"+k.Digest[7:]] = true
	}
	for _, v := range records {
		digests["images/"+v.ImageDigest[7:]], digests["kernels/"+v.KernelDigest[7:]] = true, true
	}
	return errors.Join(differ("the kernel", r.w.expected(records), r.w.k.snapshot()), r.w.disk(records, digests), r.handles(records))
}

// unsettled says what a VM waits for; empty: nothing.
func (r *run) unsettled(v vm.VMRecord) string {
	switch {
	case v.Runtime.ResetDue:
		return "its system disk is to be made anew: " + v.Runtime.LastError
	case v.Want == vm.WantGone:
		return "it is to be removed: " + v.Runtime.LastError
	case v.Want == vm.WantStopped && v.Runtime.State != vm.StateStopped && v.Runtime.State != vm.StateError:
		return "it is to be stopped and is " + string(v.Runtime.State)
	case plan.Pending(v): // or in the middle of it, when the host has what it should not have yet
		return ""
	case v.Want == vm.WantRunning && v.Runtime.State != vm.StateRunning:
		return "it is to run and is " + string(v.Runtime.State)
	case v.Want == vm.WantRunning && r.daemon.Engine.Observe(v).Paused:
		return ""
	case v.Want == vm.WantRunning && !r.daemon.Engine.Observe(v).Ready:
		return "it runs and its guest is not reached"
	}
	return ""
}

// expected are the kernel's objects that the records ask for.
func (w *world) expected(records []vm.VMRecord) []string {
	var all, rules []string
	base := ""
	for _, v := range records {
		if v.Want != vm.WantRunning {
			continue
		}
		if rules = append(rules, ruleOf(v.ID, v.Runtime.GuestIP)); plan.Pending(v) {
			continue
		}
		image := filepath.Join(w.paths.Images(), v.ImageDigest[7:], "root.ext4")
		all = append(all, "process of "+string(v.ID), fmt.Sprintf("tap %s of %q", tapOf(v.ID), aliasOf(v.ID)), fmt.Sprintf("port %s of the bridge", tapOf(v.ID)), "cgroup "+cgroupOf(v.ID),
			fmt.Sprintf("device %s on %s and %s", dmOf(v.ID), image, v.Runtime.SystemOverlay), "loop device on "+v.Runtime.SystemOverlay)
		for _, p := range v.Spec.Ports {
			all = append(all, "port "+p.Host())
		}
		if base != image {
			base = image
			all = append(all, "loop device on "+image)
		}
	}
	if len(rules) > 0 {
		slices.Sort(rules)
		all = append(all, "bridge", "rules for "+strings.Join(rules, ", "))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func differ(where string, want, got []string) error {
	var errs []error
	for _, g := range got {
		if !slices.Contains(want, g) {
			errs = append(errs, fmt.Errorf("%s has %s, which no record asks for", where, g))
		}
	}
	for _, x := range want {
		if !slices.Contains(got, x) {
			errs = append(errs, fmt.Errorf("%s has no %s, which a record asks for", where, x))
		}
	}
	if len(errs) == 0 && len(got) != len(want) {
		errs = append(errs, fmt.Errorf("%s has something twice: %q", where, got))
	}
	return errors.Join(errs...)
}

// Files of a VM's directory: those that a running one must have, those that one has that ran, and those only one that runs
// may have.
var (
	vmFiles   = []string{"system", "work.ext4", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "known_hosts", "console.log", "vmm.log"}
	scratches = []string{handles.FileName}
)

// disk holds everything in the daemon's directories against the records. What may lie there is listed; all else leaks.
func (w *world) disk(records []vm.VMRecord, digests map[string]bool) error {
	may := map[string]bool{"banger.db": true, "banger.db-wal": true, "banger.db-shm": true, "ballast": true, "ssh/id_ed25519": true, "ssh/id_ed25519.pub": true}
	must := map[string]bool{"banger.db": true}
	for dir := range digests {
		names := []string{"root.ext4", "image.json"}
		if w.forgot && dir == "images/"+imageDigest[7:] {
			continue
		}
		if strings.HasPrefix(dir, "kernels/") {
			names = []string{"vmlinux", "modules.ext4", "kernel.json", "boot/order"}
			may[dir+"/boot/order.vsock"] = true
		}
		for _, n := range names {
			must[dir+"/"+n] = true
		}
	}
	for _, name := range []string{"firecracker", "jailer", "vmm.json"} {
		may["vmms/firecracker/1.13.99/"+name] = true
	}
	running := map[string]bool{}
	for _, v := range records {
		dir := "vms/" + string(v.ID) + "/"
		for _, n := range vmFiles {
			may[dir+n] = true
		}
		if v.Want != vm.WantRunning || plan.Pending(v) {
			continue
		}
		running[string(v.ID)] = true
		for _, n := range slices.Concat(vmFiles, scratches) {
			must[dir+n] = true
		}
		must["run/"+string(v.ID)+"/api.sock"], must["run/"+string(v.ID)+"/agent.sock"] = true, true
	}
	var errs []error
	err := filepath.WalkDir(w.paths.Root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // gone since its directory was read
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.paths.Root, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if id, ok := strings.CutPrefix(rel, "run/"); ok && !running[id] {
				errs = append(errs, fmt.Errorf("%s is there, and its VM does not run", rel))
			}
			if id, ok := strings.CutPrefix(rel, "vms/"); ok && !slices.ContainsFunc(records, func(v vm.VMRecord) bool { return string(v.ID) == id }) {
				errs = append(errs, fmt.Errorf("%s is there without a row", rel))
			}
			if strings.Contains(rel, ".staging-") {
				errs = append(errs, fmt.Errorf("%s is left", rel))
				return fs.SkipDir
			}
			return nil
		}
		if must[rel] {
			delete(must, rel)
		} else if !may[rel] && !strings.HasPrefix(rel, "cache/initramfs/") {
			errs = append(errs, fmt.Errorf("%s is left", rel))
		}
		return nil
	})
	for rel := range must {
		errs = append(errs, fmt.Errorf("%s is missing", rel))
	}
	return errors.Join(append(errs, err)...)
}

// handles holds what the daemon knows of each VM, in memory and in the scratch file, against the process that is there.
func (r *run) handles(records []vm.VMRecord) error {
	var errs []error
	for _, v := range records {
		cached, scratch := r.daemon.Engine.Handles.Get(v.ID), handles.Read(v.ID, v.Runtime.VMDir)
		id, _ := r.w.k.ProcessOf(v.ID)
		if cached != scratch || r.daemon.Engine.Handles.Process(v.ID) != id {
			errs = append(errs, fmt.Errorf("VM %s: process %+v, in memory %+v, in the scratch file %+v", v.Name, id, cached, scratch))
		}
		if v.Want == vm.WantRunning && !plan.Pending(v) && (cached.TapDevice != tapOf(v.ID) || cached.DMName != dmOf(v.ID) || cached.Cgroup != cgroupOf(v.ID) || cached.BaseLoop == "" || cached.CowLoop == "") {
			errs = append(errs, fmt.Errorf("VM %s runs with handles %+v", v.Name, cached))
		}
	}
	return errors.Join(errs...)
}

// disks are what guests have written, by file.
func (w *world) disks() map[string]string { return w.disksOf("*") }

// disksOf are those of one VM.
func (w *world) disksOf(id vm.ID) map[string]string {
	all := map[string]string{}
	paths, _ := filepath.Glob(filepath.Join(w.paths.VMs(), string(id), "*"))
	for _, p := range paths {
		if name := filepath.Base(p); name == "system" || name == "work.ext4" {
			b, _ := os.ReadFile(p)
			b = bytes.TrimPrefix(bytes.TrimPrefix(b, []byte(wellStore)), []byte(spoiltStore)) // which is the kernel's word
			// A disk that has grown holds what it held.
			all[p] = string(bytes.TrimRight(b, "\x00"))
		}
	}
	return all
}

// kept says which of the disks that were before are not as they were, but for those of VMs that are gone.
func (w *world) kept(before map[string]string, records []vm.VMRecord) error {
	now := w.disks()
	var errs []error
	for path, content := range before {
		id := filepath.Base(filepath.Dir(path))
		there := slices.ContainsFunc(records, func(v vm.VMRecord) bool { return string(v.ID) == id })
		if there && now[path] != content {
			errs = append(errs, fmt.Errorf("lost: %s held %q, and holds %q", path, content, now[path]))
		}
	}
	return errors.Join(errs...)
}
