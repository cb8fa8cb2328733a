package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

func config(t *testing.T) vmm.Config {
	d := t.TempDir()
	if err := os.WriteFile(filepath.Join(d, "root.qcow2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		ID: vm.NewID(), Name: "web", Dir: d, VCPU: 1, MemoryMiB: 256, Kernel: "/k/vmlinux", Initramfs: "/k/initramfs",
		Root:    vmm.Disk{Path: filepath.Join(d, "root.qcow2"), Format: "qcow2"},
		APISock: filepath.Join(d, "api.sock"), AgentSock: filepath.Join(d, "agent.sock"),
		Console: filepath.Join(d, "console.log"), Log: filepath.Join(d, "vmm.log"),
	}
}

func TestSuite(t *testing.T) {
	vmmtest.Suite(t, func(*testing.T) vmmtest.Env {
		h := NewHost()
		return vmmtest.Env{
			Driver: New(h, "fake"), Processes: h, Config: config,
			LaunchAndDie: func(t *testing.T, c vmm.Config) {
				if _, _, err := New(h, "fake").Launch(t.Context(), c); err != nil { // a driver that nobody keeps
					t.Fatal(err)
				}
			},
		}
	})
}

func launch(t *testing.T, h *Host, c vmm.Config) (proc.Identity, <-chan string) {
	t.Helper()
	id, exited, err := New(h, "fake").Launch(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Signal(id, unix.SIGKILL) })
	return id, exited
}

func client(h *Host, c vmm.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return New(h, "fake").DialAgent(ctx, c.Ref())
		},
		DisableKeepAlives: true,
	}}
}

func TestStrictness(t *testing.T) {
	base := config(t)
	base.Work = &vmm.Disk{Path: "/d/work", Format: "raw"}
	base.Modules = &vmm.Disk{Path: "/d/modules", Format: "raw", ReadOnly: true}
	base.NIC = &vmm.NIC{Tap: "bt0"}
	h := NewHost()
	launch(t, h, base)
	for name, change := range map[string]func(*vmm.Config){
		"relative kernel": func(c *vmm.Config) { c.Kernel = "vmlinux" },
		"no memory":       func(c *vmm.Config) { c.MemoryMiB = 0 },
		"odd format":      func(c *vmm.Config) { c.Root.Format = "vmdk" },
		"same id":         func(c *vmm.Config) { c.ID = base.ID },
		"same API socket": func(c *vmm.Config) { c.APISock = base.APISock },
		"same work disk":  func(c *vmm.Config) { c.Work = base.Work },
		"written base":    func(c *vmm.Config) { c.Root = vmm.Disk{Path: "/d/modules", Format: "raw"} },
		"same tap":        func(c *vmm.Config) { c.NIC = base.NIC },
		"missing log dir": func(c *vmm.Config) { c.Log = "/no/such/dir/log" },
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			change(&c)
			if id, _, err := New(h, "fake").Launch(t.Context(), c); err == nil {
				_ = h.Signal(id, unix.SIGKILL)
				t.Error("accepted")
			}
		})
	}
	c := config(t)
	c.Modules = base.Modules // shared by all, read-only
	launch(t, h, c)
}

func TestRulesRefuse(t *testing.T) {
	h, c := NewHost(), config(t)
	h.Rule(Rules{Launch: func(vmm.Config) error { return errors.New("out of memory") }})
	if _, _, err := New(h, "fake").Launch(t.Context(), c); err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("launch: %v", err)
	}
	never := func(vmm.Config) bool { return false }
	h.Rule(Rules{Quit: never, Terminate: never})
	id, exited := launch(t, h, c)
	if err := errors.Join(New(h, "fake").Quit(t.Context(), c.Ref()), h.Signal(id, unix.SIGTERM), h.Signal(id, 0)); err != nil {
		t.Fatal(err)
	}
	if !h.Alive(id) {
		t.Fatal("it ended against the rules")
	}
	if err := h.Signal(id, unix.SIGKILL); err != nil || <-exited != "signal: killed" {
		t.Errorf("kill: %v", err)
	}
}

func TestReusedPIDIsAnother(t *testing.T) {
	h, c := NewHost(), config(t)
	id, _ := launch(t, h, c)
	if _, err := h.Reuse(id.PID); err == nil {
		t.Error("reused the pid of a live process")
	}
	if err := h.Exit(id, "exit status 1"); err != nil {
		t.Fatal(err)
	}
	other, err := h.Reuse(id.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Signal(id, unix.SIGKILL); !errors.Is(err, proc.ErrGone) {
		t.Errorf("signal to the old identity: %v", err)
	}
	if h.Alive(id) || !h.Alive(other) || len(h.Running()) != 0 {
		t.Error("the two are mistaken for each other")
	}
}

func TestReboot(t *testing.T) {
	h, c := NewHost(), config(t)
	id, exited := launch(t, h, c)
	before := h.BootID()
	h.Reboot()
	if <-exited == "" || h.Alive(id) || h.BootID() == before {
		t.Error("something survived")
	}
	again, _ := launch(t, h, c)
	if again.BootID == id.BootID {
		t.Error("two boots have one id")
	}
}

func TestAgent(t *testing.T) {
	h, c := NewHost(), config(t)
	ready := make(chan struct{})
	h.Rule(Rules{Ready: func(vmm.Config) <-chan struct{} { return ready }})
	_, exited := launch(t, h, c)
	hc := client(h, c)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	early, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://guest"+guest.PathHello, nil)
	if _, err := hc.Do(early); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before it is ready: %v", err)
	}
	close(ready)

	body, _ := json.Marshal(guest.Configure{ID: string(c.ID), Hostname: "web"})
	resp, err := hc.Post("http://guest"+guest.PathConfigure, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var hello guest.Hello
	err = json.NewDecoder(resp.Body).Decode(&hello)
	_ = resp.Body.Close()
	if err != nil || hello.Configured != string(c.ID) || hello.Hostname != "web" || hello.Protocol != guest.Protocol {
		t.Errorf("configured: %+v, %v", hello, err)
	}

	resp, err = hc.Post("http://guest"+guest.PathPowerOff, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if how := <-exited; how != "exit status 0" {
		t.Errorf("powered off: %q", how)
	}
}

func TestExec(t *testing.T) {
	h, c := NewHost(), config(t)
	h.Rule(Rules{Exec: func(_ context.Context, e Exec) ExecExit {
		in, err := io.ReadAll(e.Stdin)
		if err != nil {
			return ExecExit{Code: 1}
		}
		_, _ = e.Stdout.Write(bytes.ToUpper(in))
		_, _ = io.WriteString(e.Stderr, <-e.Signals)
		return ExecExit{Code: 42}
	}})
	launch(t, h, c)
	conn, err := New(h, "fake").DialAgent(t.Context(), c.Ref())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	body, _ := json.Marshal(guest.ExecRequest{Argv: []string{"tr"}, Stdin: true})
	req, _ := http.NewRequest(http.MethodPost, "http://guest"+guest.PathExec, bytes.NewReader(body))
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", guest.UpgradeExec)
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 0, 256)
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("answer is %q", head)
	}
	w, r := guest.NewFrameWriter(conn), guest.NewFrameReader(conn)
	for _, f := range []struct {
		t guest.FrameType
		p string
	}{{guest.FrameStdin, "hello"}, {guest.FrameStdinClose, ""}, {guest.FrameSignal, "SIGINT"}} {
		if err := w.Write(f.t, []byte(f.p)); err != nil {
			t.Fatal(err)
		}
	}
	got := map[guest.FrameType]string{}
	for {
		ft, p, err := r.Next()
		if err != nil {
			break
		}
		got[ft] += string(p)
	}
	if got[guest.FrameStdout] != "HELLO" || got[guest.FrameStderr] != "SIGINT" || got[guest.FrameExit] != `{"code":42}` {
		t.Errorf("frames are %q", got)
	}
}
