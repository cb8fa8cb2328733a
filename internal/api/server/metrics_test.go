package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
	"banger/internal/vmm"
	"banger/internal/vmm/fake"
)

// scrape reads the metrics, and checks the shape of each line.
func scrape(t *testing.T, socket string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := c.Get("http://banger" + api.PathMetrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%s, %v, %v", resp.Status, resp.Header, err)
	}
	line := regexp.MustCompile(`^(# HELP \w+ .+|# TYPE \w+ (counter|gauge|histogram)|\w+(\{(\w+="[^"\n]*",?)+\})? \S+)$`)
	seen := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		if !line.MatchString(l) {
			t.Errorf("line %q", l)
		}
		if strings.HasPrefix(l, "# TYPE") {
			if seen[l] {
				t.Errorf("twice: %s", l)
			}
			seen[l] = true
		}
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	c, host, socket := serve(t)
	ctx := t.Context()
	first := scrape(t, socket)
	for _, want := range []string{`banger_build_info{version="test-1"} 1`, `banger_vms{state="running"} 0`, "process_resident_memory_bytes "} {
		if !strings.Contains(first, "\n"+want) {
			t.Errorf("no %s in\n%s", want, first)
		}
	}
	r, err := c.Create(ctx, api.CreateRequest{Name: "web", Start: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	host.Rule(fake.Rules{
		Launch: func(vmm.Config) error { return errors.New("no memory") },
		Exec:   func(context.Context, fake.Exec) fake.ExecExit { return fake.ExecExit{} },
	})
	conn, err := c.Exec(ctx, "web", guest.ExecRequest{Argv: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
	if _, err := c.Create(ctx, api.CreateRequest{Name: "bad", Start: true}, nil); err == nil {
		t.Error("it started")
	}
	if _, err := c.VM(ctx, "nobody"); vm.CodeOf(err) != vm.CodeNotFound {
		t.Errorf("%v", err)
	}
	process, _ := host.ProcessOf(r.ID)
	if err := host.Exit(process, "signal: killed"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx, "web", api.UntilStopped); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(ctx, api.CreateRequest{Name: "off"}, nil); err != nil {
		t.Fatal(err)
	}
	host.Rule(fake.Rules{})
	live, err := c.Create(ctx, api.CreateRequest{Name: "live", Start: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{
		`banger_vms{state="error"} 1`, `banger_vms{state="running"} 1`, `banger_vms{state="stopped"} 2`,
		`banger_vm_info{id="` + string(live.ID) + `",name="live",image="img",vmm="qemu"} 1`,
		`banger_vm_cpu_seconds_total{id="` + string(live.ID) + `"} 1`, `banger_vm_resident_memory_bytes{id="` + string(live.ID) + `"} 6.7108864e+07`,
		`banger_vm_starts_total{vmm="qemu",result="failed"} 1`, `banger_vm_starts_total{vmm="qemu",result="ok"} 2`,
		`banger_vm_start_duration_seconds_count{vmm="qemu"} 2`, `banger_vm_start_duration_seconds_bucket{vmm="qemu",le="+Inf"} 2`,
		`banger_vm_unexpected_ends_total{vmm="qemu"} 1`,
		`banger_requests_total{operation="vm-create",status="200"} 3`, `banger_requests_total{operation="vm-create",status="503"} 1`,
		`banger_requests_total{operation="vm-show",status="404"} 1`, `banger_requests_total{operation="vm-exec",status="101"} 1`,
	}
	missing := func(text string) []string {
		return slices.DeleteFunc(slices.Clone(wants), func(want string) bool { return strings.Contains(text, "\n"+want+"\n") })
	}
	got := scrape(t, socket)
	for end := time.Now().Add(time.Minute); len(missing(got)) > 0; got = scrape(t, socket) { // a request is counted after its answer
		if time.Now().After(end) {
			t.Fatalf("no %q in\n%s", missing(got), got)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := strings.Count(got, "\nbanger_vm_info{"); n != 1 {
		t.Errorf("%d VMs live", n)
	}
}
