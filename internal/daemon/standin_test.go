package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banger/internal/daemon"
	"banger/internal/host/proc"
	"banger/internal/inventory"
	"banger/internal/version"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// Variables that a test sets for the daemons it starts.
const (
	standInEnv = "BANGER_TEST_STANDIN" // not empty: VMs are stand-ins
	versionEnv = "BANGER_TEST_VERSION" // of the build
)

func bangerd(args []string) int {
	if v := os.Getenv(versionEnv); v != "" {
		version.Version = v
	}
	if os.Getenv(standInEnv) == "" {
		return daemon.Main(args)
	}
	return daemon.MainWith(args, standInDriver{})
}

// standInDriver has machines that are processes of this program: found by their command line, reached through sockets,
// ended by signals, as QEMU is; only that the guest in them is a fake one, and there in milliseconds.
type standInDriver struct{}

func (standInDriver) Name() string           { return "qemu" }
func (standInDriver) Features() vmm.Features { return vmm.Features{} }
func (standInDriver) Multiplexed() bool      { return false }

func (standInDriver) Probe(context.Context) vmm.Probe {
	return vmm.Probe{Usable: true, Binary: "standin", Version: "1", Accel: "tcg", Why: "it is a test"}
}

// Arguments of the process.
const (
	argAPI = iota + 1 // of the command line
	argAgent
	argConsole
	argCount
)

func (standInDriver) Launch(ctx context.Context, c vmm.Config) (id proc.Identity, exited <-chan string, err error) {
	binary, err := exec.LookPath("standin")
	if err != nil {
		return id, nil, err
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, path := range []string{c.APISock, c.AgentSock} {
		if err := vmm.RemoveStale(ctx, path); err != nil {
			return id, nil, err
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			return id, nil, err
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		_ = l.Close()
		if err != nil {
			return id, nil, err
		}
		files = append(files, f)
	}
	// Its log is nowhere: that a VMM holds a file of the state open must not keep a test from unmounting it.
	return vmm.Spawn{Binary: binary, Args: []string{c.APISock, c.AgentSock, c.Console}, Log: os.DevNull, Files: files, Cgroup: c.Cgroup}.Start(ctx)
}

func (standInDriver) Find(_ context.Context, ref vmm.Ref) (proc.Identity, bool, error) {
	found, err := proc.Find(func(args []string) bool { return len(args) == argCount && args[argAPI] == ref.APISock })
	if err != nil || len(found) == 0 {
		return proc.Identity{}, false, err
	}
	return found[0], true, nil
}

func (standInDriver) DialAgent(ctx context.Context, ref vmm.Ref) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", ref.AgentSock)
}

func (standInDriver) Quit(ctx context.Context, ref vmm.Ref) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", ref.APISock)
	if err != nil {
		return nil // it is gone
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	_, err = c.Write([]byte("quit\n"))
	_, _ = io.Copy(io.Discard, c)
	return err
}

// Kinds implements inventory.Source: such a machine leaves nothing but itself.
func (standInDriver) Kinds(p inventory.Place) []inventory.Kind {
	return []inventory.Kind{vmm.ProcessKind(func(context.Context) (all []vmm.Machine, err error) {
		found, err := proc.Find(func(args []string) bool {
			return len(args) == argCount && filepath.Base(args[0]) == "standin" && strings.HasPrefix(args[argAPI], p.Run+"/")
		})
		for _, process := range found {
			args, aerr := proc.Args(process.PID)
			if aerr != nil || len(args) != argCount {
				continue
			}
			m := vmm.Machine{ID: vm.ID(filepath.Base(filepath.Dir(args[argAPI]))), Process: process, Program: "standin"}
			if args[argAPI] == filepath.Join(p.Sockets(m.ID), "api.sock") {
				m.Proof = "its API socket is " + args[argAPI]
			}
			all = append(all, m)
		}
		return all, err
	})}
}

func (standInDriver) Remove(context.Context, vmm.Ref) error { return nil }

// standIn is the process of one machine.
func standIn(args []string) int {
	args = slices.Insert(slices.Clone(args), 0, "standin")
	if len(args) != argCount {
		return 2
	}
	inner := vmm.Config{ID: "0123456789ab", VCPU: 1, MemoryMiB: 1, Kernel: "/", Initramfs: "/", Root: vmm.Disk{Path: "/", Format: "raw"},
		APISock: args[argAPI] + ".inner", AgentSock: args[argAgent] + ".inner", Console: args[argConsole], Log: os.DevNull}
	driver := fake.New(fake.NewHost(), "qemu")
	_, exited, err := driver.Launch(context.Background(), inner)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go serveFD(3, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		if line == "quit\n" {
			_ = driver.Quit(context.Background(), inner.Ref())
		}
	})
	go serveFD(4, func(c net.Conn) {
		guest, err := driver.DialAgent(context.Background(), inner.Ref())
		if err != nil {
			return
		}
		var both sync.WaitGroup
		both.Go(func() { forward(guest, c) })
		both.Go(func() { forward(c, guest) })
		both.Wait()
		_ = guest.Close()
	})
	<-exited
	_, _ = os.Remove(args[argAPI]), os.Remove(args[argAgent])
	return 0
}

func forward(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.(*net.UnixConn).CloseWrite()
}

// serveFD accepts on an inherited socket for as long as the process lives.
func serveFD(fd uintptr, serve func(net.Conn)) {
	l, err := net.FileListener(os.NewFile(fd, "listener"))
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}
	if !errors.Is(err, net.ErrClosed) {
		fmt.Fprintln(os.Stderr, err)
	}
}
