package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/vm"
)

// find looks a VM up as the real daemon does. Caller holds mu.
func (f *fake) find(ref string) (*vm.VMRecord, error) {
	var found *vm.VMRecord
	for _, r := range f.vms {
		if r.Name == ref || string(r.ID) == ref {
			return r, nil
		}
		if strings.HasPrefix(string(r.ID), ref) && len(ref) >= 4 {
			found = r
		}
	}
	if found != nil {
		return found, nil
	}
	return nil, vm.Errorf(vm.CodeNotFound, "there is no VM %q", ref).WithHint("see 'banger vm list'")
}

// lookup answers with an error when there is no such VM.
func (f *fake) lookup(w http.ResponseWriter, r *http.Request) *vm.VMRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	record, err := f.find(r.PathValue("ref"))
	if err != nil {
		refuse(w, err)
		return nil
	}
	return record
}

func (f *fake) copyOf(r *vm.VMRecord) vm.VMRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *r
}

// set changes a VM and wakes who waits.
func (f *fake) set(r *vm.VMRecord, state vm.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if state == vm.StateRunning && r.State != vm.StatePaused {
		f.launched[r.ID] = r.Spec
	}
	r.State, r.Runtime.State = state, state
	if state == vm.StateRemoving {
		delete(f.vms, r.ID)
		os.RemoveAll(r.Runtime.VMDir)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) list(w http.ResponseWriter, _ *http.Request) {
	all := []api.VMListed{}
	for _, r := range f.records() {
		all = append(all, api.VMListed{VMRecord: r, Pending: f.pending(r)})
	}
	answer(w, all)
}

func (f *fake) summaries(w http.ResponseWriter, _ *http.Request) {
	all := []api.VMSummary{}
	for _, r := range f.records() {
		s := api.SummaryOf(r)
		s.Pending = f.pending(r)
		all = append(all, s)
	}
	answer(w, all)
}

// pending are the words for what a VM that runs was launched without.
func (f *fake) pending(r vm.VMRecord) (words []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	had := f.launched[r.ID]
	for word, differs := range map[string]bool{
		api.PendingVCPU: had.VCPU != r.Spec.VCPU, api.PendingMemory: had.MemoryMiB != r.Spec.MemoryMiB, api.PendingDiskSize: had.DiskSize != r.Spec.DiskSize,
	} {
		if differs && r.State == vm.StateRunning {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return words
}

func (f *fake) records() []vm.VMRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	records := []vm.VMRecord{}
	for _, r := range f.vms {
		records = append(records, *r)
	}
	slices.SortFunc(records, func(a, b vm.VMRecord) int { return strings.Compare(a.Name, b.Name) })
	return records
}

// create makes a VM. Image "slow" never gets ready, image "broken" never starts.
func (f *fake) create(w http.ResponseWriter, r *http.Request) {
	var c api.CreateRequest
	json.NewDecoder(r.Body).Decode(&c)
	id := vm.NewID()
	if c.Name == "" {
		c.Name = "brave-" + string(id[:4])
	}
	if c.Image == "" {
		c.Image = vm.DefaultImage
	}
	if !slices.Contains([]string{vm.DefaultImage, "slow", "broken"}, c.Image) {
		refuse(w, vm.Errorf(vm.CodeNotFound, "there is no image %q", c.Image).WithHint("see 'banger image list'"))
		return
	}
	dir := f.p.VMDir(id)
	record := &vm.VMRecord{
		ID: id, Name: c.Name, State: vm.StateStopped, Image: c.Image, ImageDigest: fakeImage.Digest, Kernel: vm.DefaultKernel,
		KernelDigest: fakeKernel.Digest, VMM: "fake", Disk: "copy", Network: "user", CreatedAt: time.Now(),
		Spec:    vm.Spec{VCPU: max(1, c.VCPU), MemoryMiB: max(512, c.MemoryMiB), DiskSize: max(8<<30, c.DiskSize), VMM: "auto", Disk: "auto", Network: "auto", AutoRemove: c.AutoRemove, Restart: c.Restart, Labels: c.Labels, Ports: fakePorts(c.Ports)},
		Runtime: vm.VMRuntime{State: vm.StateStopped, GuestIP: "10.0.2.15", DNSName: c.Name + ".vm", VMDir: dir, LogPath: filepath.Join(dir, "console.log")},
	}
	f.mu.Lock()
	_, err := f.find(c.Name)
	if err == nil {
		f.mu.Unlock()
		refuse(w, vm.Errorf(vm.CodeExists, "there is a VM %q already", c.Name).WithHint("choose another name"))
		return
	}
	f.vms[id] = record
	f.mu.Unlock()
	os.MkdirAll(filepath.Join(dir, "root", "etc"), 0o700)
	os.WriteFile(filepath.Join(dir, "root", "etc", "hostname"), []byte(c.Name+"\n"), 0o644)
	os.WriteFile(record.Runtime.LogPath, []byte("one\ntwo\nthree\n"), 0o600)
	if c.Start {
		os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(c.Name+".vm ssh-ed25519 AAAA\n"), 0o600)
	}
	stream(w, api.Message{Event: stageEvent(record, "image", "begin")}, api.Message{Event: stageEvent(record, "image", "end")})
	if c.Start {
		f.set(record, vm.StateStarting)
		if c.Image == vm.DefaultImage {
			f.set(record, vm.StateRunning)
		}
	}
	if c.Start && !c.NoWait {
		if err := f.await(r, record); err != nil {
			stream(w, api.Message{Done: true, Error: api.BodyOf(err)})
			return
		}
	}
	stream(w, api.Message{Done: true, VM: record})
}

// await returns when the VM is ready.
func (f *fake) await(r *http.Request, record *vm.VMRecord) error {
	for {
		f.mu.Lock()
		state, there, changed := record.State, f.vms[record.ID] != nil, f.changed
		f.mu.Unlock()
		switch {
		case !there:
			return vm.Errorf(vm.CodeNotFound, "there is no VM %q any more", record.Name)
		case record.Image == "broken":
			f.set(record, vm.StateStopped)
			return vm.Errorf(vm.CodeMissing, "start VM %s: QEMU is missing", record.Name).WithHint("install qemu-system-x86")
		case state == vm.StateRunning:
			return nil
		case state == vm.StatePaused:
			return vm.Errorf(vm.CodeNotRunning, "VM %s is paused", record.Name).WithHint("banger vm resume %s", record.Name)
		case state != vm.StateStarting:
			return vm.Errorf(vm.CodeNotRunning, "VM %s is not running", record.Name).WithHint("start it with 'banger vm start %s'", record.Name)
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

func (f *fake) show(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	v := api.VMView{VMRecord: *record, VMDir: record.Runtime.VMDir, VMMWhy: "it is a test", Speed: "as fast as tests are", Ports: f.published(record), SSH: &api.SSHAccess{
		User: "root", IdentityFile: f.p.SSHKey(), KnownHosts: filepath.Join(record.Runtime.VMDir, "known_hosts"), HostKeyAlias: record.Runtime.DNSName}}
	if record.State == vm.StateRunning {
		f.mu.Lock()
		had := f.launched[record.ID]
		f.mu.Unlock()
		v.Handles = vm.VMHandles{PID: 4711, LaunchedVCPU: had.VCPU, LaunchedMemoryMiB: had.MemoryMiB, LaunchedDiskSize: had.DiskSize}
		v.Observed = vm.Observed{Alive: true, Ready: true, Accel: "tcg"}
		v.Pending = f.pending(*record)
	}
	answer(w, v)
}

func (f *fake) remove(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if r.FormValue("if") == "stopped" && record.State != vm.StateStopped {
		refuse(w, vm.Errorf(vm.CodeConflict, "VM %s is not stopped (%s)", record.Name, record.State))
		return
	}
	f.set(record, vm.StateRemoving)
	stream(w, api.Message{Event: stageEvent(record, "remove", "begin")}, api.Message{Event: stageEvent(record, "remove", "end")},
		api.Message{Done: true, VM: record})
}

func (f *fake) start(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	f.set(record, vm.StateRunning)
	stream(w, api.Message{Event: stageEvent(record, "boot", "begin")}, api.Message{Event: stageEvent(record, "boot", "end")},
		api.Message{Done: true, VM: record})
}

func (f *fake) stopVM(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if record.Spec.Labels["settles"] == "never" && record.State == vm.StateRunning {
		record.Runtime.LastError, record.Runtime.LastErrorAt = "it did not settle its disks", time.Now()
	}
	f.set(record, vm.StateStopped)
	stream(w, api.Message{Done: true, VM: record})
}

// wait answers when the VM has the state that is asked for.
func (f *fake) wait(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	for {
		f.mu.Lock()
		state, there, changed := record.State, f.vms[record.ID] != nil, f.changed
		f.mu.Unlock()
		switch until := r.FormValue("for"); {
		case !there && until == "ready":
			refuse(w, vm.Errorf(vm.CodeNotFound, "VM %s is being removed: it will not be ready", record.Name))
			return
		case !there, until == "stopped" && state == vm.StateStopped, until == "ready" && state == vm.StateRunning:
			answer(w, record)
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// events tells of one VM that it boots, and nothing more; of all that, too, and how their states change from then on.
func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	ref := r.FormValue("vm")
	f.mu.Lock()
	record, err := f.find(ref)
	f.mu.Unlock()
	if ref != "" && err != nil {
		refuse(w, err)
		return
	}
	if ref != "" {
		stream(w, stageEvent(record, "boot", "begin"))
		<-r.Context().Done()
		return
	}
	seen := map[vm.ID]vm.VMRecord{}
	for first := true; ; first = false {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		records := f.records()
		for _, v := range records {
			old, there := seen[v.ID]
			seen[v.ID] = v
			switch {
			case first:
				stream(w, stageEvent(&v, "boot", "begin"))
			case !there || old.State != v.State:
				stream(w, vm.Event{Time: longAgo, VM: v.ID, Name: v.Name, Kind: "state", State: v.State})
			}
		}
		for id, v := range seen {
			if !slices.ContainsFunc(records, func(r vm.VMRecord) bool { return r.ID == id }) {
				stream(w, vm.Event{Time: longAgo, VM: id, Name: v.Name, Kind: "gone"})
				delete(seen, id)
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fake) logs(w http.ResponseWriter, r *http.Request) {
	record := f.lookup(w, r)
	if record == nil {
		return
	}
	if r.FormValue("of") == "daemon" {
		fmt.Fprintf(w, "noted about %s, tail %q, since %q\n", record.Name, r.FormValue("tail"), r.FormValue("since"))
		return
	}
	b, _ := os.ReadFile(record.Runtime.LogPath)
	lines := strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
	if n, err := strconv.Atoi(r.FormValue("tail")); err == nil {
		lines = lines[max(0, len(lines)-n):]
	}
	io.WriteString(w, strings.Join(lines, ""))
	if len(lines) > 0 {
		io.WriteString(w, "\n")
	}
	for r.FormValue("follow") == "1" && r.Context().Err() == nil {
		if now, _ := os.ReadFile(record.Runtime.LogPath); len(now) > len(b) {
			w.Write(now[len(b):])
			b = now
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
