package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/cli/launch"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/vm"
)

// manyRows measures a daemon whose database has n VMs at rest, in a root of its own.
func (b bench) manyRows(ctx context.Context, n int) (err error) {
	root, err := os.MkdirTemp("", "bb-")
	if err != nil {
		return err
	}
	p := paths.Under(root)
	b.banger.root = root
	defer func() {
		out, serr := b.banger.output(context.WithoutCancel(ctx), "daemon", "stop")
		if serr != nil && !strings.Contains(out+serr.Error(), "no daemon") {
			err = errors.Join(err, serr)
		}
		err = errors.Join(err, launch.WaitGone(context.WithoutCancel(ctx), p), os.RemoveAll(root))
	}()
	if err := insert(ctx, p, n); err != nil {
		return err
	}
	var starts, lists, records, cli times
	for range 10 {
		begin := time.Now()
		if _, err := b.banger.output(ctx, "vm", "show", "bench-00000", "--json"); err != nil { // starts the daemon, which answers once it has looked at all VMs
			return err
		}
		starts.add(time.Since(begin))
		if _, err := b.banger.output(ctx, "daemon", "stop"); err != nil {
			return err
		}
		if err := launch.WaitGone(ctx, p); err != nil {
			return err
		}
	}
	if _, err := b.banger.output(ctx, "vm", "show", "bench-00000"); err != nil {
		return err
	}
	pid, err := b.daemonPID(ctx)
	if err != nil {
		return err
	}
	select { // what its start took goes back to the host when nobody has asked for anything for a while
	case <-time.After(15 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	idle, err := processOf(pid)
	if err != nil {
		return err
	}
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", p.Socket())
	}}}
	for what, into := range map[string]*times{api.PathSummary: &lists, api.PathVMs: &records} {
		for range 200 {
			d, err := get(ctx, &c, "http://banger"+what)
			if err != nil {
				return err
			}
			into.add(d)
		}
	}
	c.CloseIdleConnections()
	busy, err := processOf(pid)
	if err != nil {
		return err
	}
	for range 20 {
		d, err := b.banger.run(ctx, "vm", "list")
		if err != nil {
			return err
		}
		cli.add(d)
	}
	fmt.Printf("%d rows: start, reconcile, first answer  %s   (aim: at most 1000 ms)\n", n, starts)
	fmt.Printf("%d rows: GET %s               %s  p99 %.1f ms   (aim: p99 at most 20 ms)\n", n, api.PathSummary, lists, ms(lists.quantile(99)))
	fmt.Printf("%d rows: GET %s, whole records      %s  p99 %.1f ms\n", n, api.PathVMs, records, ms(records.quantile(99)))
	fmt.Printf("%d rows: banger vm list                  %s\n", n, cli)
	fmt.Printf("daemon, idle after its start                %v   (aim: at most 40 MiB)\n", idle)
	fmt.Printf("daemon, after 400 lists                     %v\n", busy)
	return nil
}

// insert puts rows of stopped VMs into a new database.
func insert(ctx context.Context, p paths.Paths, n int) (err error) {
	if err := p.Make(ctx); err != nil {
		return err
	}
	db, err := store.Open(ctx, p.Database())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for i := range n {
		id := vm.ID(fmt.Sprintf("%012x", i))
		name := fmt.Sprintf("bench-%05d", i)
		dir := p.VMDir(id)
		r := vm.VMRecord{
			ID: id, Name: name, Want: vm.WantStopped, Generation: 1, Image: vm.DefaultImage, ImageDigest: "sha256:" + strings.Repeat("1a", 32),
			Kernel: vm.DefaultKernel, KernelDigest: "sha256:" + strings.Repeat("2b", 32), VMM: "qemu", Disk: "qcow2", Network: "user", CreatedAt: time.Now(),
			Spec: vm.Spec{VCPU: 1, MemoryMiB: 1024, DiskSize: 8 << 30, VMM: vm.Auto, Disk: vm.Auto, Network: vm.Auto, ImageName: vm.DefaultImage, KernelName: vm.DefaultKernel},
			Runtime: vm.VMRuntime{State: vm.StateStopped, GuestIP: "10.0.2.15", APISockPath: p.VMRun(id) + "/api.sock", VSockPath: p.VMRun(id) + "/agent.sock",
				LogPath: dir + "/console.log", DNSName: name + ".vm", VMDir: dir, SystemOverlay: dir + "/system", WorkDiskPath: dir + "/work.ext4"},
		}
		if _, err := db.CreateVM(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// get measures a request to its last byte.
func get(ctx context.Context, c *http.Client, url string) (time.Duration, error) {
	begin := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return time.Since(begin), err
}

func (b bench) daemonPID(ctx context.Context) (int, error) {
	out, err := b.banger.output(ctx, "daemon", "status", "--json")
	if err != nil {
		return 0, err
	}
	var s api.Status
	err = json.Unmarshal([]byte(out), &s)
	return s.PID, err
}

// process is what a process holds.
type process struct {
	rss     string
	threads string
	fds     int
}

func (p process) String() string {
	return fmt.Sprintf("%s resident, %s threads, %d descriptors", p.rss, p.threads, p.fds)
}

func processOf(pid int) (p process, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "VmRSS":
			p.rss = strings.Join(strings.Fields(value), " ")
		case "Threads":
			p.threads = strings.TrimSpace(value)
		}
	}
	entries, err := os.ReadDir(dir + "/fd")
	p.fds = len(entries)
	return p, err
}

// quantile is the value that p of a hundred do not exceed.
func (t times) quantile(p int) time.Duration {
	if len(t) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(t))[(len(t)*p-1)/100]
}
