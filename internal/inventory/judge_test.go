package inventory

import (
	"strings"
	"testing"
	"time"

	"banger/internal/vm"
)

const (
	web, db, gone = vm.ID("00000000000a"), vm.ID("00000000000b"), vm.ID("00000000000c")
)

func records() []vm.VMRecord {
	return []vm.VMRecord{
		{ID: web, Name: "web", Want: vm.WantRunning, Runtime: vm.VMRuntime{State: vm.StateRunning}},
		{ID: db, Name: "db", Want: vm.WantStopped, Runtime: vm.VMRuntime{State: vm.StateStopped}},
	}
}

func TestJudge(t *testing.T) {
	born := time.Now()
	before, after := born.Add(-time.Hour), born.Add(time.Hour)
	const proof = "it lies here"
	for name, c := range map[string]struct {
		o       Object
		status  Status
		owner   string
		why     string // part of it
		kept    string // part of it; empty = not kept
		unknown bool   // when the database was made
		change  func(*vm.VMRecord)
	}{
		"of a running VM":                {o: Object{VM: web, Run: true, Proof: proof}, status: Owned, owner: "web", why: "running"},
		"of a VM, without proof":         {o: Object{VM: web, Run: true, Doubt: "who knows"}, status: Owned, owner: "web"},
		"of a stopped VM":                {o: Object{VM: db, Proof: proof}, status: Owned, owner: "db", why: "stopped"},
		"left of a run":                  {o: Object{VM: db, Run: true, Proof: proof}, status: Orphan, why: "only a running VM"},
		"left of a run, without proof":   {o: Object{VM: db, Run: true, Doubt: "who knows"}, status: Owned, owner: "db"},
		"of a run that is being cleaned": {o: Object{VM: db, Run: true, Proof: proof}, status: Owned, owner: "db", change: func(r *vm.VMRecord) { r.Runtime.Attempts = 1 }},
		"of a VM that stops":             {o: Object{VM: db, Run: true, Proof: proof}, status: Owned, owner: "db", change: func(r *vm.VMRecord) { r.Runtime.State = vm.StateStopping }},
		"of a VM that starts":            {o: Object{VM: db, Run: true, Proof: proof}, status: Owned, owner: "db", change: func(r *vm.VMRecord) { r.Want = vm.WantRunning }},
		"of no VM":                       {o: Object{VM: gone, Proof: proof}, status: Orphan, why: proof},
		"of no VM, without proof":        {o: Object{VM: gone, Doubt: "another root's"}, status: Foreign, why: "another root's"},
		"of no VM, in use":               {o: Object{VM: gone, Proof: proof, Busy: "it is tried"}, status: Owned, why: "it is tried"},
		"of no VM, after the database":   {o: Object{VM: gone, Proof: proof, Made: after}, status: Orphan},
		"of no VM, before the database":  {o: Object{VM: gone, Proof: proof, Made: before}, status: Orphan, kept: "the database is younger"},
		"a moment before the database":   {o: Object{VM: gone, Proof: proof, Made: born.Add(-clockSlack / 2)}, status: Orphan},
		"disks":                          {o: Object{VM: gone, Proof: proof, Made: after, Holds: "disks"}, status: Orphan, kept: "--discard 00000000000c"},
		"disks, unknown database":        {o: Object{VM: gone, Proof: proof, Made: after, Holds: "disks"}, status: Orphan, kept: "--discard", unknown: true},
		"disks of a VM with a record":    {o: Object{VM: db, Proof: proof, Holds: "disks"}, status: Owned, owner: "db"},
		"disks without proof":            {o: Object{VM: gone, Doubt: "another root's", Holds: "disks"}, status: Foreign},
		"a handle, unknown database":     {o: Object{VM: gone, Proof: proof, Made: after}, status: Orphan, unknown: true},
		"shared, needed":                 {o: Object{Users: []vm.ID{gone, web}, Proof: proof}, status: Owned, owner: "web", why: "in use by web"},
		"shared, not needed":             {o: Object{Users: []vm.ID{gone}, Proof: proof}, status: Orphan},
		"nobody's":                       {o: Object{Proof: proof}, status: Orphan, why: proof},
		"half of a VM's file":            {o: Object{VM: web, Scrap: true, Proof: proof}, status: Orphan},
		"half of a file, being written":  {o: Object{VM: web, Scrap: true, Proof: proof, Busy: "it is young"}, status: Owned, owner: "web"},
	} {
		t.Run(name, func(t *testing.T) {
			k := knowledge{records: records(), born: born}
			if c.unknown {
				k.born = time.Time{}
			}
			if c.change != nil {
				c.change(&k.records[1])
			}
			got := judge([]Finding{{Object: c.o}}, k)[0]
			if got.Status != c.status || got.Owner != c.owner || !strings.Contains(got.Why, c.why) || got.Why == "" {
				t.Errorf("%s, owner %q, because %q; want %s, %q, %q", got.Status, got.Owner, got.Why, c.status, c.owner, c.why)
			}
			if (c.kept == "") != (got.Kept == "") || !strings.Contains(got.Kept, c.kept) {
				t.Errorf("kept because %q, want %q", got.Kept, c.kept)
			}
			if got.Removable() != (c.status == Orphan && c.kept == "") {
				t.Errorf("removable: %v", got.Removable())
			}
		})
	}
}

// Where one thing of a VM was there before the database, nothing of it is touched.
func TestOneOldObjectKeepsAllOfItsVM(t *testing.T) {
	born := time.Now()
	got := judge([]Finding{
		{Object: Object{Kind: "tap", VM: gone, Proof: "p"}, rank: Networks},
		{Object: Object{Kind: "process", VM: gone, Proof: "p", Made: born.Add(-time.Hour)}, rank: Processes},
		{Object: Object{Kind: "tap", VM: "00000000000d", Proof: "p"}, rank: Networks},
	}, knowledge{born: born})
	if got[0].Kind != "process" || got[0].Kept == "" || got[1].Kept == "" || got[2].Kept != "" {
		t.Errorf("%+v", got)
	}
}

// Of a VM whose disks are there nothing is touched, not its process either: it may write to them.
func TestDisksKeepAllOfTheirVM(t *testing.T) {
	got := judge([]Finding{
		{Object: Object{Kind: "process", VM: gone, Proof: "p"}, rank: Processes},
		{Object: Object{Kind: "directory", VM: gone, Proof: "p", Holds: "disks"}, rank: Homes},
		{Object: Object{Kind: "process", VM: "00000000000d", Proof: "p"}, rank: Processes},
	}, knowledge{born: time.Now()})
	for _, f := range got {
		if (f.Kept != "") != (f.VM == gone) {
			t.Errorf("%s of %s, kept because %q", f.Kind, f.VM, f.Kept)
		}
	}
}

func TestNames(t *testing.T) {
	for want, names := range map[string][]string{"a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}, "a, b, c and 2 more": {"a", "b", "c", "d", "e"}} {
		if got := Names(names); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
