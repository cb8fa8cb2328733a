package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/paths"
	"banger/internal/version"
	"banger/internal/vm"
)

// fake is a daemon with VMs that are entries of a map; commands "in" them are processes of this machine, their files
// lie in a directory. It is strict where the real one is: names, states, what is found and what is not.
type fake struct {
	p    paths.Paths
	stop func()

	mu       sync.Mutex
	vms      map[vm.ID]*vm.VMRecord
	launched map[vm.ID]vm.Spec
	jobs     []*fakeJob
	begun    int           // jobs, ever
	changed  chan struct{} // closed and replaced at each change of a VM
}

// fakeDaemon is bangerd in the scripts. FAKE_DAEMON=die|refuse makes it fail to start, FAKE_VERSION be another build.
func fakeDaemon() int {
	p, err := paths.Default()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fd, _ := strconv.Atoi(os.Getenv(api.ReadyEnv))
	ready := os.NewFile(uintptr(fd), "ready")
	switch os.Getenv("FAKE_DAEMON") {
	case "die":
		fmt.Fprintln(os.Stderr, "the moon is in the wrong place")
		return 7
	case "refuse":
		json.NewEncoder(ready).Encode(api.Ready{Error: &api.ErrorBody{Code: vm.CodeCorrupt, Message: "open the database: it is corrupt", Hint: "keep it"}})
		return 1
	}
	lock, err := os.OpenFile(p.DaemonLock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "a second daemon:", err)
		return 1
	}
	started, _ := os.OpenFile(filepath.Join(p.State, "started"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	fmt.Fprintln(started, os.Getpid())
	os.Remove(p.Socket())
	l, err := net.Listen("unix", p.Socket())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stopped := make(chan struct{})
	f := &fake{p: p, stop: sync.OnceFunc(func() { close(stopped) }), vms: map[vm.ID]*vm.VMRecord{}, launched: map[vm.ID]vm.Spec{}, changed: make(chan struct{})}
	server := &http.Server{Handler: f.handler()}
	go server.Serve(l)
	json.NewEncoder(ready).Encode(api.Ready{Ready: true, Version: fakeVersion()})
	ready.Close()
	<-stopped
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	server.Shutdown(ctx)
	return 0
}

func fakeVersion() string {
	if v := os.Getenv("FAKE_VERSION"); v != "" {
		return v
	}
	return version.String()
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathVersion, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, api.Version{Version: fakeVersion(), PID: os.Getpid()})
	})
	mux.HandleFunc("GET "+api.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, api.Status{PID: os.Getpid(), Version: fakeVersion(), Socket: f.p.Socket(), Database: f.p.Database(), Root: f.p.Root, Log: f.p.DaemonLog(), VMs: len(f.vms)})
	})
	mux.HandleFunc("POST "+api.PathStop, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent); f.stop() })
	mux.HandleFunc("GET "+api.PathDoctor, f.doctor)
	mux.HandleFunc("GET "+api.PathObjects, f.listObjects)
	mux.HandleFunc("POST "+api.PathFix, f.fixObjects)
	mux.HandleFunc("GET "+api.PathImages, f.listImages)
	mux.HandleFunc("GET "+api.PathKernels, f.listKernels)
	mux.HandleFunc("GET "+api.PathImage, f.showEntry("image"))
	mux.HandleFunc("GET "+api.PathKernel, f.showEntry("kernel"))
	mux.HandleFunc("POST "+api.PathImageTag, tagEntry("image"))
	mux.HandleFunc("POST "+api.PathKernelTag, tagEntry("kernel"))
	mux.HandleFunc("DELETE "+api.PathImage, f.deleteFrom("image", "VMs stand on it"))
	mux.HandleFunc("DELETE "+api.PathKernel, f.deleteFrom("kernel", "VMs boot from it"))
	mux.HandleFunc("POST "+api.PathBuild, f.build)
	mux.HandleFunc("POST "+api.PathImageImport, importImage)
	mux.HandleFunc("POST "+api.PathImport, f.imports)
	mux.HandleFunc("GET "+api.PathVMMs, f.listVMMs)
	mux.HandleFunc("GET "+api.PathVMM, f.showVMM)
	mux.HandleFunc("POST "+api.PathVMMInstall, f.installVMM)
	mux.HandleFunc("DELETE "+api.PathVMMVersion, f.deleteVMM)
	mux.HandleFunc("GET "+api.PathEvents, f.events)
	mux.HandleFunc("GET "+api.PathVMs, f.list)
	mux.HandleFunc("GET "+api.PathSummary, f.summaries)
	mux.HandleFunc("POST "+api.PathVMs, f.create)
	mux.HandleFunc("GET "+api.PathVM, f.show)
	mux.HandleFunc("DELETE "+api.PathVM, f.remove)
	mux.HandleFunc("POST "+api.PathVMStart, f.start)
	mux.HandleFunc("POST "+api.PathVMStop, f.stopVM)
	mux.HandleFunc("POST "+api.PathRestart, f.start)
	mux.HandleFunc("POST "+api.PathPause, f.pause(vm.StateRunning, vm.StatePaused))
	mux.HandleFunc("POST "+api.PathResume, f.pause(vm.StatePaused, vm.StateRunning))
	mux.HandleFunc("POST "+api.PathReset, f.reset)
	mux.HandleFunc("POST "+api.PathCommit, f.commit)
	mux.HandleFunc("PATCH "+api.PathVM, f.setSpec)
	mux.HandleFunc("POST "+api.PathRename, f.rename)
	mux.HandleFunc("GET "+api.PathVMWait, f.wait)
	mux.HandleFunc("GET "+api.PathVMStats, f.stats)
	mux.HandleFunc("GET "+api.PathVMTop, f.top)
	mux.HandleFunc("GET "+api.PathVMPorts, f.ports)
	mux.HandleFunc("POST "+api.PathVMPorts, f.changePorts)
	mux.HandleFunc("GET "+api.PathVMLogs, f.logs)
	mux.HandleFunc("POST "+api.PathVMExec, f.exec)
	mux.HandleFunc("GET "+api.PathVMJobs, f.listJobs)
	mux.HandleFunc("POST "+api.PathAttach, f.attach)
	mux.HandleFunc("POST "+api.PathSignal, f.signalJob)
	mux.HandleFunc("POST "+api.PathVMSSH, f.ssh)
	mux.HandleFunc(api.PathVMFiles, f.files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, fakeVersion())
		mux.ServeHTTP(w, r)
	})
}

var (
	longAgo    = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	fakeImage  = vm.Image{Name: vm.DefaultImage, Digest: "sha256:0123456789abcdef", Size: 250 << 20, CreatedAt: longAgo, Source: "a fake"}
	fakeKernel = vm.Kernel{Name: vm.DefaultKernel, Digest: "sha256:fedcba9876543210", Release: "6.12.0", Size: 50 << 20, CreatedAt: longAgo, Source: "a fake"}
)

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, err error) {
	w.WriteHeader(api.StatusOf(vm.CodeOf(err)))
	json.NewEncoder(w).Encode(api.BodyOf(err))
}

// stream sends messages, each flushed.
func stream(w http.ResponseWriter, messages ...any) {
	for _, m := range messages {
		json.NewEncoder(w).Encode(m)
		w.(http.Flusher).Flush()
	}
}

func stageEvent(r *vm.VMRecord, stage, status string) *vm.Event {
	e := &vm.Event{Time: time.Now(), Kind: "stage", Stage: stage, Status: status, ElapsedMs: 1234}
	if r != nil {
		e.VM, e.Name = r.ID, r.Name
	}
	return e
}

func (f *fake) doctor(w http.ResponseWriter, _ *http.Request) {
	problems := []api.Problem{{Code: "emulated", Severity: "warning", Text: "VMs run under software emulation: KVM opens but does not work", Hint: "expect them to be slow"}}
	if os.Getenv("FAKE_DAEMON") == "sick" {
		problems = append(problems, api.Problem{Code: "vmm-missing", Severity: "error", Text: "QEMU is missing", Hint: "install it"})
	}
	answer(w, problems)
}

func (f *fake) build(w http.ResponseWriter, r *http.Request) {
	var b api.BuildRequest
	json.NewDecoder(r.Body).Decode(&b)
	if b.Recipe != vm.DefaultImage {
		refuse(w, vm.Errorf(vm.CodeNotFound, "no recipe is called %q", b.Recipe).WithHint("there is %s", vm.DefaultImage))
		return
	}
	stream(w, api.Message{Event: stageEvent(nil, "image", "begin")}, api.Message{Event: stageEvent(nil, "image", "end")})
	if b.Force && len(b.Packages) > 0 && b.Packages[0] == "no-such-package" {
		stream(w, api.Message{Done: true, Error: &api.ErrorBody{Code: vm.CodeNotFound, Message: "build image: no package no-such-package", Hint: "see apt-cache search"}})
		return
	}
	i := fakeImage
	if b.Name == "slow" {
		f.buildSlowly(w, r)
		return
	}
	if b.Script != "" {
		i.Name = b.Name
		stream(w, api.Message{Event: stageEvent(nil, "script", "begin")}, api.Message{Event: &vm.Event{Kind: "note", Stage: "script", Text: b.Script}}, api.Message{Event: stageEvent(nil, "script", "end")})
	}
	stream(w, api.Message{Done: true, Image: &i})
}

// buildSlowly is a script that does not end, in a VM that goes only when it is deleted.
func (f *fake) buildSlowly(w http.ResponseWriter, r *http.Request) {
	id := vm.NewID()
	record := &vm.VMRecord{ID: id, Name: "builder", Runtime: vm.VMRuntime{VMDir: f.p.VMDir(id)}}
	f.mu.Lock()
	f.vms[id] = record
	f.mu.Unlock()
	f.set(record, vm.StateRunning)
	stream(w, api.Message{Event: stageEvent(record, "boot", "begin")}, api.Message{Event: stageEvent(record, "boot", "end")}, api.Message{Event: stageEvent(nil, "script", "begin")})
	<-r.Context().Done()
}

func (f *fake) imports(w http.ResponseWriter, r *http.Request) {
	var b api.ImportRequest
	json.NewDecoder(r.Body).Decode(&b)
	if strings.HasPrefix(b.Source, "/") {
		if _, err := os.Stat(b.Source); err != nil {
			refuse(w, vm.Errorf(vm.CodeNotFound, "import kernel: %w", err))
			return
		}
	}
	k := fakeKernel
	if b.Name != "" {
		k.Name = b.Name
	}
	stream(w, api.Message{Done: true, Kernel: &k})
}
