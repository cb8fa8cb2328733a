// Package vmmtest is the contract of vmm.Driver as tests. Every driver passes Suite.
package vmmtest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// patience bounds every wait for something that should come at once.
const patience = 20 * time.Second

// Env is one driver on one host.
type Env struct {
	Driver    vmm.Driver
	Processes vmm.Processes

	// Config makes a launchable configuration with sockets, disks and files of its own. Its machine runs until it is
	// ended. Calling it again gives another machine.
	Config func(t *testing.T) vmm.Config

	// LaunchAndDie launches c by a driver whose process (a daemon) is then killed, as hard as can be.
	LaunchAndDie func(t *testing.T, c vmm.Config)
}

// Suite runs every test against the driver that setup makes.
func Suite(t *testing.T, setup func(t *testing.T) Env) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Env)
	}{
		{"Probe", probe},
		{"LaunchIsFound", launchIsFound},
		{"FindTellsSocketsApart", findTellsSocketsApart},
		{"KillIsTold", killIsTold},
		{"TerminateIsTold", terminateIsTold},
		{"QuitTwice", quitTwice},
		{"QuitOfAStopped", quitOfAStopped},
		{"FindLeavesOtherUsersAlone", findLeavesOtherUsersAlone},
		{"StaleSockets", staleSockets},
		{"SecondLaunchIsRefused", secondLaunchIsRefused},
		{"FailedLaunchLeavesNothing", failedLaunchLeavesNothing},
		{"AgentCanBeDialled", agentCanBeDialled},
		{"RemoveTwice", removeTwice},
		{"PauseAndResume", pauseAndResume},
		{"LaunchOutlivesItsContext", launchOutlivesItsContext},
		{"OutlivesTheLauncher", outlivesTheLauncher},
		{"TwoMachines", twoMachines},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, setup(t)) })
	}
}

// launch starts c and sees to its end.
func launch(t *testing.T, e Env, c vmm.Config) (proc.Identity, <-chan string) {
	t.Helper()
	id, exited, err := e.Driver.Launch(t.Context(), c)
	if err != nil {
		t.Fatalf("launch: %v", err)
	}
	t.Cleanup(func() { end(t, e, id) })
	return id, exited
}

func end(t *testing.T, e Env, id proc.Identity) {
	_ = e.Processes.Signal(id, unix.SIGKILL)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.Processes.Wait(ctx, id); err != nil {
		t.Errorf("process %d does not end: %v", id.PID, err)
	}
}

func toldExit(t *testing.T, exited <-chan string) string {
	t.Helper()
	select {
	case how, ok := <-exited:
		if !ok {
			t.Fatal("exited is closed without a word")
		}
		return how
	case <-time.After(patience):
		t.Fatal("the end is not told")
	}
	return ""
}

func find(t *testing.T, e Env, ref vmm.Ref) (proc.Identity, bool) {
	t.Helper()
	id, ok, err := e.Driver.Find(t.Context(), ref)
	if err != nil {
		t.Fatalf("find: %v", err)
	}
	return id, ok
}

func probe(t *testing.T, e Env) {
	p := e.Driver.Probe(t.Context())
	if !p.Usable || p.Why == "" || p.Version == "" || p.Accel == "" {
		t.Errorf("probe says %+v", p)
	}
	if again := e.Driver.Probe(t.Context()); again != p {
		t.Errorf("asked again it says %+v, before %+v", again, p)
	}
	if e.Driver.Name() == "" {
		t.Error("the driver has no name")
	}
}

func launchIsFound(t *testing.T, e Env) {
	c := e.Config(t)
	if id, ok := find(t, e, c.Ref()); ok {
		t.Fatalf("found %+v before any launch", id)
	}
	id, _ := launch(t, e, c)
	if !e.Processes.Alive(id) {
		t.Errorf("%+v is not alive", id)
	}
	if found, ok := find(t, e, c.Ref()); !ok || found != id {
		t.Errorf("found %+v (%v), launched %+v", found, ok, id)
	}
	if id.PID == 0 || id.StartTime == 0 || id.BootID == "" {
		t.Errorf("identity %+v is not whole", id)
	}
}

func findTellsSocketsApart(t *testing.T, e Env) {
	c := e.Config(t)
	launch(t, e, c)
	for _, sock := range []string{c.APISock + "x", strings.TrimSuffix(c.APISock, "k"), c.AgentSock, "", "/"} {
		other := vmm.Ref{ID: vm.NewID(), Dir: c.Dir + "x", APISock: sock, AgentSock: c.AgentSock}
		if id, ok := find(t, e, other); ok {
			t.Errorf("found %+v by %+v", id, other)
		}
	}
}

func killIsTold(t *testing.T, e Env) {
	c := e.Config(t)
	id, exited := launch(t, e, c)
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if how := toldExit(t, exited); how != "signal: killed" {
		t.Errorf("told %q", how)
	}
	if e.Processes.Alive(id) {
		t.Error("alive after its end")
	}
	if _, ok := find(t, e, c.Ref()); ok {
		t.Error("found after its end")
	}
	if err := e.Processes.Signal(id, unix.SIGKILL); err == nil {
		t.Error("signalled after its end")
	}
	if conn, err := e.Driver.DialAgent(t.Context(), c.Ref()); err == nil {
		_ = conn.Close()
		t.Error("its agent can be dialled after its end")
	}
}

func terminateIsTold(t *testing.T, e Env) {
	id, exited := launch(t, e, e.Config(t))
	if err := e.Processes.Signal(id, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited)
	if e.Processes.Alive(id) {
		t.Error("alive after its end")
	}
}

func quitTwice(t *testing.T, e Env) {
	c := e.Config(t)
	if err := e.Driver.Quit(t.Context(), c.Ref()); err != nil {
		t.Errorf("quit of what never was: %v", err)
	}
	_, exited := launch(t, e, c)
	if err := e.Driver.Quit(t.Context(), c.Ref()); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited) // in whatever way: it may not have got to serving its API yet
	if err := e.Driver.Quit(t.Context(), c.Ref()); err != nil {
		t.Errorf("quit again: %v", err)
	}
}

func staleSockets(t *testing.T, e Env) {
	c := e.Config(t)
	id, exited := launch(t, e, c)
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited)
	again, exited := launch(t, e, c) // over what the killed one left
	if again == id {
		t.Errorf("two launches have one identity %+v", id)
	}
	if err := e.Processes.Signal(again, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited)
	for _, sock := range []string{c.APISock, c.AgentSock} { // no sockets even
		if err := os.RemoveAll(sock); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sock, []byte("stale"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	launch(t, e, c)
	awaitAgentSock(t, e, c)
}

func secondLaunchIsRefused(t *testing.T, e Env) {
	c := e.Config(t)
	id, _ := launch(t, e, c)
	if second, _, err := e.Driver.Launch(t.Context(), c); err == nil {
		end(t, e, second)
		t.Fatal("launched over a live machine")
	}
	if found, ok := find(t, e, c.Ref()); !ok || found != id {
		t.Errorf("after the refusal found %+v (%v), want %+v", found, ok, id)
	}
	awaitAgentSock(t, e, c)
}

func failedLaunchLeavesNothing(t *testing.T, e Env) {
	c := e.Config(t)
	c.APISock += ".d/missing/api.sock"
	if id, _, err := e.Driver.Launch(t.Context(), c); err == nil {
		end(t, e, id)
		t.Fatal("launched into a missing directory")
	}
	if _, ok := find(t, e, c.Ref()); ok {
		t.Error("a process is left")
	}
	if _, err := os.Lstat(c.AgentSock); err == nil {
		t.Error("a socket is left")
	}
}

// awaitAgentSock dials the agent. Over a port the connection stands at once, and the agent may answer late. Where each dial
// is a connection, the guests here do not listen: that the VMM serves the socket is all there is to see, and a dial
// must end when its context does.
func awaitAgentSock(t *testing.T, e Env, c vmm.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	conn, err := e.Driver.DialAgent(ctx, c.Ref())
	if err == nil {
		_ = conn.Close()
		return
	}
	if e.Driver.Multiplexed() {
		t.Fatalf("dial the agent: %v", err)
	}
	await(t, "nobody serves the agent's socket", func() error {
		conn, err := net.Dial("unix", c.AgentSock)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// await tries until there is no error: for what gives no event.
func await(t *testing.T, complaint string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", complaint, err)
		}
	}
}

// Right after Launch, with no wait.
func agentCanBeDialled(t *testing.T, e Env) {
	c := e.Config(t)
	id, _ := launch(t, e, c)
	awaitAgentSock(t, e, c)
	awaitAgentSock(t, e, c) // a connection that was closed does not block the next
	if !e.Processes.Alive(id) {
		t.Error("dialling ended the machine")
	}
}

// What a driver made beside the process goes with Remove, which may be asked for twice, and of what never was.
func removeTwice(t *testing.T, e Env) {
	c := e.Config(t)
	before := entries(t, c)
	if err := e.Driver.Remove(t.Context(), c.Ref()); err != nil {
		t.Errorf("remove of what never was: %v", err)
	}
	id, exited := launch(t, e, c)
	if err := e.Processes.Signal(id, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	toldExit(t, exited)
	for range 2 {
		if err := e.Driver.Remove(t.Context(), c.Ref()); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	logs := map[string]bool{c.Console: true, c.Log: true, c.Metrics: true}
	for name := range entries(t, c) {
		if path := filepath.Join(c.Dir, name); !before[name] && !logs[path] && path != c.APISock && path != c.AgentSock {
			t.Errorf("%s is left", path)
		}
	}
	if _, err := os.Stat(c.Root.Path); err != nil {
		t.Errorf("the disk is gone: %v", err)
	}
}

// entries are the names in the VM's directory.
func entries(t *testing.T, c vmm.Config) map[string]bool {
	t.Helper()
	list, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range list {
		names[e.Name()] = true
	}
	return names
}

func twoMachines(t *testing.T, e Env) {
	a, b := e.Config(t), e.Config(t)
	idA, _ := launch(t, e, a)
	idB, _ := launch(t, e, b)
	if err := e.Processes.Signal(idA, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if found, ok := find(t, e, b.Ref()); !ok || found != idB {
		t.Errorf("of two, found %+v (%v), want %+v", found, ok, idB)
	}
}
