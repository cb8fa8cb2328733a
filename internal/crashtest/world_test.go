package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/api/server"
	"banger/internal/binary"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/disk"
	"banger/internal/engine"
	"banger/internal/host/proc"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/paths"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

func itoa(n int) string { return strconv.Itoa(n) }

// world is a host with its disk, which outlive daemons.
type world struct {
	t     testing.TB
	k     *machine
	paths paths.Paths

	source   string        // of kernels and programs
	forgot   bool          // the image of its row was taken away
	guards   time.Duration // how often its daemons look at disks that may fill it up; 0 = as usual
	rebooted bool          // since the operation: what ran does not
	stranger proc.Identity // a process that is nobody's VMM, and must stay
}

// newWorld is a host on which a daemon ran once: there are a database, an image and a guest's kernel, and nothing runs.
func newWorld(t testing.TB) *world {
	w := &world{t: t, k: newMachine(), paths: paths.Under(scratch(t)), source: filepath.Join(template(t), "source")}
	if err := os.CopyFS(w.paths.Root, os.DirFS(filepath.Join(template(t), "state"))); err != nil {
		t.Fatal(err)
	}
	return w
}

// close gives the disk back.
func (w *world) close() { _ = os.RemoveAll(w.paths.Root) }

// run is one daemon over the world.
type run struct {
	*life
	w       *world
	ctx     context.Context // of everything in it; ends with it
	stop    context.CancelFunc
	daemon  *daemon.Daemon
	handler http.Handler
}

// boot begins a daemon that ends at a point ("label#n"; empty = at none). It returns when the daemon would serve, or has
// died.
func (w *world) boot(at string) *run {
	r := &run{life: newLife(at), w: w}
	w.k.Settle()
	r.ctx, r.stop = context.WithCancel(act.Watch(context.Background(), r.life))
	r.do(func(ctx context.Context) {
		ctx = act.In(ctx, "daemon-start")
		if err := w.paths.Make(ctx); err != nil {
			w.t.Error(err)
			return
		}
		d, err := daemon.Assemble(ctx, w.paths, config.Default(), slog.New(slog.DiscardHandler), daemon.Host{
			Guest: guest, ImageSteps: imageSteps(), Drivers: w.drivers, Processes: w.k.Host, Cgroups: cgroups{w.k},
			WorkDisk: workDisk, Listen: w.listenFor(r.life), BootID: w.k.BootID(), GuardEvery: w.guards,
			Limits: engine.Limits{MemoryMiB: 1 << 20, FreeBytes: func(string) (uint64, error) { return 1 << 40, nil }},
		})
		if err != nil {
			if !r.dead() && r.life.fault == nil {
				w.t.Errorf("start the daemon: %v", err)
			}
			return
		}
		r.daemon = d
	})
	return r
}

// serve makes the API, of which not every daemon is asked something.
func (r *run) serve() http.Handler {
	if d := r.daemon; r.handler == nil {
		r.handler = server.New(server.Config{
			Engine: d.Engine, Images: d.Images, Kernels: d.Kernels, Programs: d.Programs, Version: "test", Stop: func() {},
			Log:    slog.New(slog.DiscardHandler),
			Status: func(context.Context) (api.Status, error) { return api.Status{}, nil },
			Doctor: func(context.Context) []api.Problem { return nil },
		})
	}
	return r.handler
}

func (w *world) drivers(p paths.Paths, _ config.Config, _ *kernel.Library, _ *slog.Logger) (daemon.Drivers, error) {
	return daemon.Drivers{
		VMMs: []vmm.Driver{fake.New(w.k.Host, "qemu")}, Disks: []disk.Driver{newDisks(w.k)}, Networks: []network.Driver{newNetwork(w.k)},
		Programs: programs(p), Close: func() {},
	}, nil
}

// longest bounds what the daemon is asked for: what programs of the host do for it takes its time.
const longest = time.Minute

// do calls f as a part of the daemon, and returns when it has ended, as it does when the daemon dies.
func (r *run) do(f func(ctx context.Context)) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if !r.dead() {
			f(r.ctx)
		}
	}()
	late := time.NewTimer(longest)
	defer late.Stop()
	select {
	case <-ended:
	case <-r.died:
		r.stop()
		<-ended
	case <-late.C: // a finding, and who waited any longer would tell nobody of it
		r.w.t.Errorf("what the daemon was asked for is not done after %v", longest)
		r.end()
		r.stop()
		<-ended
	}
}

// close ends the daemon, unless it has died, and returns when nothing of it can act any more.
func (r *run) close() {
	r.end()
	r.stop()
	if r.daemon != nil {
		ended := make(chan struct{})
		go func() { // what closes could come to a point, and end there
			defer close(ended)
			r.daemon.Close()
		}()
		<-ended
	}
}

// answer is what a client has seen of a request's end.
type answer struct {
	acked bool // the daemon said that it is done, and well
	began bool // the daemon told the record of what it begins
	err   error
	vm    *vm.VMRecord
}

// call makes a request of the API. A daemon that dies meanwhile hangs up.
func (r *run) call(method, path string, body any) answer {
	b, err := json.Marshal(body)
	if err != nil {
		r.w.t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	r.do(func(ctx context.Context) {
		req := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(b))
		req.Header.Set("Content-Type", "application/json")
		r.serve().ServeHTTP(rec, req)
	})
	return read(rec)
}

func read(rec *httptest.ResponseRecorder) (a answer) {
	if rec.Code == http.StatusNoContent {
		return answer{acked: true}
	}
	if rec.Code != http.StatusOK {
		var e api.ErrorBody
		if json.Unmarshal(rec.Body.Bytes(), &e) == nil && e.Message != "" {
			a.err = e.Err()
		}
		return a
	}
	for d := json.NewDecoder(rec.Body); ; {
		var m api.Message
		if err := d.Decode(&m); err != nil {
			if a.err == nil && !a.acked {
				a.err = io.ErrUnexpectedEOF
			}
			return a
		}
		if m.Event != nil && m.Event.Kind == "state" {
			a.began = true
		}
		if m.Done {
			a.acked, a.err, a.vm = m.Error == nil, m.Error.Err(), m.VM
		}
	}
}

// records are all rows, read while the daemon lives.
func (r *run) records() ([]vm.VMRecord, error) { return r.daemon.Store.VMs(context.Background()) }

func (r *run) record(name string) (vm.VMRecord, bool) {
	all, err := r.records()
	if err != nil {
		r.w.t.Fatal(err)
	}
	for _, rec := range all {
		if rec.Name == name {
			return rec, true
		}
	}
	return vm.VMRecord{}, false
}

// programs are Firecracker's, got from a directory.
func programs(p paths.Paths) *binary.Library {
	return binary.New(binary.Config{Dir: p.VMMs(), Release: func(string) string { return "" }, Programs: binary.Programs{
		Tested: "1.13.99", Supported: "any", Supports: func(string) error { return nil },
		Version: func(_ context.Context, program string) (string, string, error) {
			if strings.HasSuffix(program, "jailer") {
				return "Jailer", "1.13.99", nil
			}
			return "Firecracker", "1.13.99", nil
		},
		Resolve: func(name string) (string, error) { return name, nil },
		Probe:   func(context.Context) vmm.Probe { return vmm.Probe{} },
	}})
}

// scratch is a new directory, in memory where there is such a file system: what is synced there costs nothing.
func scratch(t testing.TB) string {
	base := os.TempDir()
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "banger-crash-")
	if err != nil {
		dir, err = os.MkdirTemp("", "banger-crash-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// guestWrites has each VM's guest write something to its disks.
func (w *world) guestWrites(id vm.ID) {
	for _, name := range []string{"system", "work.ext4"} {
		f, err := os.OpenFile(filepath.Join(w.paths.VMDir(id), name), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(f, "written by the guest of %s\n", id)
			_ = f.Close()
		}
		if err != nil {
			w.t.Error(err)
		}
	}
}
