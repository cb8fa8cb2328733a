package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/disk"
	"banger/internal/disk/fullcopy"
	"banger/internal/engine"
	"banger/internal/guest"
	"banger/internal/handles"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/network/none"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/testhost"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// lib answers for both libraries: one image, one kernel.
type lib struct{ root string }

func (l lib) RootPath(string) string { return l.root }

func (imageLib) BuildBase(context.Context, image.BuildOptions, string, vm.Report) (image.Base, error) {
	return image.Base{}, nil
}

func (imageLib) Adopt(context.Context, image.AdoptOptions, func(context.Context, string) error, vm.Report) (vm.Image, error) {
	return vm.Image{}, nil
}

func (lib) Sweep(context.Context, string) error { return nil }

func (lib) Boot(context.Context, string) (kernel.Boot, error) {
	return kernel.Boot{Vmlinux: "/k/vmlinux", Initramfs: "/k/initramfs", ModulesDisk: "/k/modules"}, nil
}

type imageLib struct{ lib }

func (imageLib) Known(_ context.Context, name string) error {
	if name != "img" {
		return vm.Errorf(vm.CodeNotFound, "no image named %q", name).WithHint("there is img")
	}
	return nil
}

func (imageLib) Use(_ context.Context, name string, _ vm.Report) (vm.Image, func(), error) {
	return vm.Image{Name: name, Digest: "sha256:i"}, func() {}, nil
}

type kernelLib struct{ lib }

func (kernelLib) Known(context.Context, string) error { return nil }

func (kernelLib) Use(_ context.Context, name string, _ vm.Report) (vm.Kernel, func(), error) {
	return vm.Kernel{Name: name, Digest: "sha256:k"}, func() {}, nil
}

// serve is a whole API over the fake VMM, on a real socket.
func serve(t *testing.T) (*client.Client, *fake.Host, string) {
	t.Helper()
	c, host, socket, _, _ := serveHandler(t)
	return c, host, socket
}

// serveHandler is serve, and what answers behind the socket.
func serveHandler(t *testing.T) (*client.Client, *fake.Host, string, http.Handler, *engine.Engine) {
	t.Helper()
	p := paths.Under(testhost.Dir(t))
	for _, dir := range []string{p.VMs(), p.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(p.State, "root.ext4")
	if err := os.WriteFile(root, []byte("fs"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), p.Database())
	if err != nil {
		t.Fatal(err)
	}
	host, log := fake.NewHost(), slog.New(slog.NewTextHandler(io.Discard, nil))
	e := engine.New(t.Context(), engine.Config{
		Store: db, Handles: handles.NewCache(), Paths: p, Images: imageLib{lib{root}}, Kernels: kernelLib{},
		VMMs: []vmm.Driver{fake.New(host, "qemu")}, Disks: []disk.Driver{fullcopy.New()}, Networks: []network.Driver{none.New()},
		Processes: host, BootID: host.BootID(), Log: log,
		WorkDisk: func(_ context.Context, path string, _ int64) error { return os.WriteFile(path, nil, 0o600) },
		Defaults: engine.Defaults{VCPU: 1, MemoryMiB: 256, DiskSize: 1 << 30, Image: "img", Kernel: "k", VMM: "auto", Disk: "auto", Network: "auto"},
		Limits:   engine.Limits{MemoryMiB: 4096, FreeBytes: func(string) (uint64, error) { return 1 << 40, nil }},
	})
	l, err := Listen(t.Context(), p.Socket(), log)
	if err != nil {
		t.Fatal(err)
	}
	handler := New(Config{
		Engine: e, Version: "test-1", Log: log, Stop: func() {},
		Images: image.New(image.Config{Dir: p.Images(), Records: db}), Kernels: kernel.New(kernel.Config{Dir: p.Kernels(), Records: db}),
		Status: func(context.Context) (api.Status, error) { return api.Status{PID: os.Getpid(), Version: "test-1"}, nil },
		Doctor: func(context.Context) []api.Problem { return []api.Problem{} }, Inventory: halfLook{},
	})
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); e.Close(); _ = db.Close() })
	c := client.New(p.Socket())
	t.Cleanup(c.Close)
	return c, host, p.Socket(), handler, e
}

func TestLifeOverTheAPI(t *testing.T) {
	c, host, socket := serve(t)
	ctx := t.Context()
	var stages []string
	r, err := c.Create(ctx, api.CreateRequest{Name: "web", Start: true}, func(e vm.Event) {
		if e.Kind == "stage" && e.Status == "end" {
			stages = append(stages, e.Stage)
		}
	})
	if err != nil || r.State != vm.StateRunning || strings.Join(stages, " ") != "disk boot agent" {
		t.Fatalf("%+v, %v, stages %v", r, err, stages)
	}
	var told string
	other := client.New(socket, client.WithVersion(func(v string) { told = v }))
	if _, err := other.VMs(ctx); err != nil || told != "test-1" {
		t.Errorf("version header %q, %v", told, err)
	}
	other.Close()
	v, err := c.VM(ctx, "web")
	if err != nil || v.Handles.PID == 0 || !v.Observed.Alive || v.VMDir == "" || v.VMMWhy == "" || v.Speed != vmm.Speed("tcg") {
		t.Errorf("%+v, %v", v, err)
	}
	for range 2 { // stopping what is stopped is success
		if r, err = c.Stop(ctx, "web", api.StopRequest{}, nil); err != nil || r.State != vm.StateStopped {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if _, err = c.Exec(ctx, "web", guest.ExecRequest{Argv: []string{"true"}}); vm.CodeOf(err) != vm.CodeNotRunning || vm.HintOf(err) == "" {
		t.Errorf("exec in a stopped VM: %v", err)
	}
	for range 2 {
		if _, err = c.Start(ctx, "web", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Delete(ctx, "web", nil); err != nil || len(host.Running()) != 0 {
		t.Fatalf("%v, running %v", err, host.Running())
	}
	if err := c.Delete(ctx, "web", nil); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("deleting what is gone: %v", err)
	}
}

func TestExecPassesThrough(t *testing.T) {
	c, host, _ := serve(t)
	host.Rule(fake.Rules{Exec: func(_ context.Context, e fake.Exec) fake.ExecExit {
		b, _ := io.ReadAll(e.Stdin)
		_, _ = e.Stderr.Write([]byte(strings.Join(e.Request.Argv, "+")))
		_, _ = e.Stdout.Write(b)
		return fake.ExecExit{Code: 7}
	}})
	if _, err := c.Create(t.Context(), api.CreateRequest{Name: "web", Start: true}, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Exec(t.Context(), "web", guest.ExecRequest{Argv: []string{"a", "b"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out := guest.NewFrameWriter(conn)
	if err := errors.Join(out.Write(guest.FrameStdin, []byte("in\x00put")), out.Write(guest.FrameStdinClose, nil)); err != nil {
		t.Fatal(err)
	}
	got := map[guest.FrameType]string{}
	for in := guest.NewFrameReader(conn); got[guest.FrameExit] == ""; {
		k, p, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		got[k] += string(p)
	}
	if got[guest.FrameStdout] != "in\x00put" || got[guest.FrameStderr] != "a+b" || !strings.Contains(got[guest.FrameExit], `"code":7`) {
		t.Errorf("%q", got)
	}
}

func TestHangingUpLeavesTheVM(t *testing.T) {
	c, host, _ := serve(t)
	ready := make(chan struct{})
	host.Rule(fake.Rules{Ready: func(vmm.Config) <-chan struct{} { return ready }})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Create(ctx, api.CreateRequest{Name: "web", Start: true}, func(e vm.Event) {
		if e.Stage == "boot" {
			cancel()
		}
	})
	if err == nil {
		t.Fatal("a cancelled request succeeded")
	}
	close(ready)
	if r, err := c.Start(t.Context(), "web", nil); err != nil || r.State != vm.StateRunning || len(host.Launched()) != 1 {
		t.Errorf("%+v, %v; %d launches", r, err, len(host.Launched()))
	}
}

func TestErrorsTravel(t *testing.T) {
	c, _, sock := serve(t)
	_, err := c.Create(t.Context(), api.CreateRequest{Image: "nope"}, nil)
	if vm.CodeOf(err) != vm.CodeNotFound || vm.HintOf(err) != "there is img" || err.Error() != `no image named "nope"` {
		t.Errorf("%v, code %s, hint %q", err, vm.CodeOf(err), vm.HintOf(err))
	}
	for _, req := range []string{"GET /v1/nope", "POST /v1/version", "GET /v1/vms/nope/logs", "GET /v1/vms/nope", "POST /v1/vms", "GET /v1/events?vm=nope"} {
		method, path, _ := strings.Cut(req, " ")
		status, body := raw(t, sock, method, path)
		var e api.ErrorBody
		if status < 400 || json.Unmarshal([]byte(body), &e) != nil || e.Message == "" {
			t.Errorf("%s: %d %s", req, status, body)
		}
	}
}

func TestBodiesThatDoNotFitAreRefused(t *testing.T) {
	c, _, _ := serve(t)
	_, err := c.Stream(t.Context(), "testing", "POST", api.PathVMs, map[string]any{"vcpu": "many", "nonsense": 1}, nil)
	if vm.CodeOf(err) != vm.CodeInvalid || !strings.Contains(err.Error(), "vcpu") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v (code %s)", err, vm.CodeOf(err))
	}
}

func raw(t *testing.T, sock, method, path string) (int, string) {
	t.Helper()
	h := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestOpenAPIHasEveryPath(t *testing.T) {
	_, _, sock := serve(t)
	status, body := raw(t, sock, "GET", api.PathOpenAPI)
	var doc struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &doc); status != 200 || err != nil || !strings.HasPrefix(doc.OpenAPI, "3.") {
		t.Fatalf("%d, %v, %q", status, err, doc.OpenAPI)
	}
	for _, p := range []string{api.PathVersion, api.PathStatus, api.PathStop, api.PathEvents, api.PathVMs, api.PathSummary, api.PathVM, api.PathVMStart, api.PathVMStop,
		api.PathVMLogs, api.PathVMExec, api.PathVMSSH, api.PathVMFiles, api.PathVMStats, api.PathVMTop, api.PathMetrics, api.PathImages, api.PathBuild, api.PathKernels,
		api.PathImport, api.PathDoctor} {
		if len(doc.Paths[p]) == 0 {
			t.Errorf("%s is not in the document", p)
		}
	}
	if !strings.Contains(body, "memory_mib") || !strings.Contains(body, "elapsed_ms") {
		t.Error("the types are not in the document")
	}
}

func TestEventStream(t *testing.T) {
	c, _, _ := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan vm.Event, 100), make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		first := true
		done <- c.Events(ctx, "", func(e vm.Event) {
			if first {
				close(begun)
				first = false
			}
			events <- e
		})
	}()
	for i := 0; ; i++ { // the stream has begun when an event comes through
		if _, err := c.Create(t.Context(), api.CreateRequest{}, nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-begun:
		default:
			continue
		}
		break
	}
	if e := <-events; e.Kind != "state" || e.State != vm.StateStopped || e.VM == "" {
		t.Errorf("%+v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a stream that is ended: %v", err)
	}
}

// TestHelperConnect is no test: it is run as another user by TestOthersAreRefused.
func TestHelperConnect(t *testing.T) {
	sock := os.Getenv("BANGER_TEST_SOCKET")
	if sock == "" {
		t.Skip("run by TestOthersAreRefused only")
	}
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /v1/version HTTP/1.0\r\n\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	t.Logf("answer: %q", line)
}

func TestOthersAreRefused(t *testing.T) {
	testhost.Need(t, testhost.Root)
	_, _, sock := serve(t)
	if fi, err := os.Stat(sock); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	// Let others reach the socket: the check of credentials has to hold by itself.
	for _, path := range []string{filepath.Dir(filepath.Dir(sock)), filepath.Dir(sock), sock} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	self := filepath.Join(filepath.Dir(sock), "test")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]string{0: `answer: "HTTP/1.`, 65534: `answer: ""`} {
		cmd := exec.Command(self, "-test.run", "^TestHelperConnect$", "-test.v")
		cmd.Env = []string{"BANGER_TEST_SOCKET=" + sock}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("uid %d: %v, want %s\n%s", uid, err, want, out)
		}
	}
}
