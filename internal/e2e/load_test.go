package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"banger/internal/api"
	"banger/internal/guest"
)

// testLoad looks at what the VM web uses, from within and from without.
func testLoad(t *testing.T, b *box) {
	b.ok("vm", "exec", "web", "--", "sh", "-c", "head -c 20000000 /dev/urandom > /srv/load; sync; sleep 1234 > /dev/null 2>&1 < /dev/null &")
	var all []struct {
		api.VMStats
		CPU  *float64 `json:"cpu_percent"`
		Host *float64 `json:"host_cpu_percent"`
	}
	if err := json.Unmarshal([]byte(b.ok("vm", "stats", "--no-stream", "--json")), &all); err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	s := all[0]
	if s.Name != "web" || s.Error != "" || s.Guest == nil || s.CPU == nil || s.Host == nil {
		t.Fatalf("%+v", s)
	}
	if g := s.Guest; g.MemTotal < 200<<20 || g.MemAvailable <= 0 || g.MemAvailable >= g.MemTotal || g.Processes < 2 || g.DiskWritten < 20_000_000 || g.DiskRead <= 0 {
		t.Errorf("the guest: %+v", g)
	}
	if h := s.VMStats.Host; h.PID != b.show("web").Handles.PID || h.CPUMs <= 0 || h.Resident < 50<<20 || h.SystemDisk < 20_000_000 || h.WorkDisk <= 0 {
		t.Errorf("the host: %+v", h)
	}
	var processes []guest.Process
	if err := json.Unmarshal([]byte(b.ok("vm", "top", "--json", "web")), &processes); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(processes, func(p guest.Process) bool { return p.Command == "sleep 1234" && p.User == "root" && p.State == "S" }) || processes[0].PID != 1 {
		t.Errorf("%+v", processes)
	}
	if got := b.ok("vm", "top", "--all", "web"); !strings.Contains(got, "[kthreadd]") || !strings.Contains(got, "sleep 1234") {
		t.Errorf("%s", got)
	}
}
