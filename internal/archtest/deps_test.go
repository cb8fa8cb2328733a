package archtest

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const internal = "banger/internal/"

// A rule bans imports. Patterns are import paths; "x/..." is x and all below it.
type rule struct {
	of     string   // the packages the rule is for
	except []string // but not for these
	ban    []string // what they must not import
	but    []string // of that, what they may
	deep   bool     // nor import through others
	reason string
}

var heavy = []string{
	"modernc.org/...", "database/sql", "github.com/danielgtaylor/huma/...",
	internal + "engine/...", internal + "store/...", internal + "daemon/...", internal + "api/server/...",
	internal + "image/...", internal + "kernel/...", internal + "vmm/...", internal + "guestbin",
}

var rules = []rule{
	{
		of: internal + "vm", ban: []string{"banger/..."},
		reason: "the vocabulary is what everything imports: importing back would tie a knot",
	},
	{
		of: internal + "act", ban: []string{"banger/..."},
		reason: "every room that acts on the host names its acts by it",
	},
	{
		of: internal + "plan", ban: []string{"banger/..."}, but: []string{internal + "vm"},
		reason: "decisions are pure functions of record, handles, observed and time; what they could call they would come to depend on",
	},
	{
		of: internal + "plan", ban: []string{"os", "net", "os/exec", "database/sql", "golang.org/x/sys/..."},
		reason: "decisions do no I/O",
	},
	{
		of: internal + "store/...", ban: []string{"banger/..."}, but: []string{internal + "act", internal + "vm", internal + "store/..."},
		reason: "the store keeps rows; whoever acts on them is above it",
	},
	{
		of: "banger/...", except: []string{internal + "store/..."}, ban: []string{"database/sql", "database/sql/...", "modernc.org/..."},
		reason: "all SQL of the program is in one package, where one public method is one transaction",
	},
	{
		of:     "banger/internal/...",
		except: []string{internal + "host/...", internal + "vmm/...", internal + "disk/...", internal + "kernel/...", internal + "image/...", internal + "cli/...", internal + "doctor/...", internal + "guest/agent/...", internal + "testhost", internal + "lab"},
		ban:    []string{"os/exec"},
		reason: "only thin hands run programs: a decision that runs one cannot be tested without a host",
	},
	{
		of: internal + "host/...", ban: []string{"banger/..."}, but: []string{internal + "act", internal + "vm", internal + "host/..."},
		reason: "hands on the host take plain data and have no policy, so that a privileged helper can serve them",
	},
	{
		of: internal + "guest", ban: []string{"banger/..."}, but: []string{internal + "vm"},
		reason: "host and guest meet in wire types only",
	},
	{
		of: internal + "guest/agent/...", ban: []string{"modernc.org/...", "github.com/danielgtaylor/huma/...", internal + "engine/...", internal + "store/...", internal + "api/...", internal + "daemon/...", internal + "handles/...", internal + "vmm/...", internal + "host/..."}, deep: true,
		reason: "the agent is loaded into every guest's memory, and lives on the other side of the wire",
	},
	{
		of: internal + "api", ban: []string{"banger/..."}, but: []string{internal + "vm", internal + "guest"},
		reason: "CLI and daemon agree in types only",
	},
	{
		of: internal + "api/client/...", ban: heavy, deep: true,
		reason: "the CLI starts in milliseconds because none of the daemon is linked into it",
	},
	{
		of: internal + "cli/...", ban: heavy, deep: true,
		reason: "the CLI starts in milliseconds because none of the daemon is linked into it",
	},
	{
		of: "banger/cmd/banger", ban: heavy, deep: true,
		reason: "the CLI starts in milliseconds because none of the daemon is linked into it",
	},
	{
		of: internal + "engine/...", ban: []string{internal + "api/server/...", internal + "api/client/...", internal + "cli/...", internal + "daemon/...", internal + "doctor/...", "net/http"},
		reason: "no worker answers HTTP: the server calls the engine, never the other way; they share the plain types of internal/api",
	},
	{
		of: "banger/internal/...", except: []string{internal + "daemon/...", internal + "vmm/...", internal + "disk/...", internal + "network/..."},
		ban:    []string{internal + "vmm/...", internal + "disk/...", internal + "network/..."},
		but:    []string{internal + "vmm", internal + "disk", internal + "network"},
		reason: "only the daemon names concrete drivers; everybody else sees the seam",
	},
	{
		of: "banger/internal/...", except: []string{internal + "daemon/..."}, ban: []string{internal + "guestbin"},
		reason: "the guest's binary is megabytes: one program carries it",
	},
	{
		of: "banger/internal/...", except: []string{internal + "daemon/..."}, ban: []string{internal + "daemon/..."},
		reason: "wiring is the outermost layer",
	},
	{
		of: "banger/internal/...", except: []string{internal + "cli/..."}, ban: []string{internal + "cli/..."},
		reason: "the command line is the outermost layer",
	},
	{
		of: "banger/...", except: []string{internal + "testhost", internal + "lab", "banger/scripts/..."}, ban: []string{internal + "testhost", internal + "lab", "testing"},
		reason: "test support has no place in a program",
	},
}

// suites are packages with the tests that every implementation of a seam passes. They import testing.
func suite(path string) bool { return strings.HasSuffix(path, "test") && path != internal+"testhost" }

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func matches(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return pattern == path
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

// violations lists what of p breaks r.
func (r rule) violations(p pkg) []string {
	if !matches(r.of, p.ImportPath) || matchesAny(r.except, p.ImportPath) {
		return nil
	}
	imports, verb := p.Imports, "imports"
	if r.deep {
		imports, verb = p.Deps, "depends on"
	}
	var v []string
	for _, i := range imports {
		if matchesAny(r.ban, i) && !matchesAny(r.but, i) {
			v = append(v, fmt.Sprintf("%s %s %s: %s", p.ImportPath, verb, i, r.reason))
		}
	}
	return v
}

// siblings lists imports from one driver to another of the same seam.
func siblings(p pkg) []string {
	var v []string
	for _, seam := range []string{"vmm", "disk", "network"} {
		own, ok := strings.CutPrefix(p.ImportPath, internal+seam+"/")
		if !ok || suite(p.ImportPath) {
			continue
		}
		own, _, _ = strings.Cut(own, "/")
		for _, i := range p.Imports {
			if other, ok := strings.CutPrefix(i, internal+seam+"/"); ok && !matches(own+"/...", other) {
				v = append(v, fmt.Sprintf("%s imports %s: drivers never import each other, what two need belongs to the seam or to host/", p.ImportPath, i))
			}
		}
	}
	return v
}

// fewest is how many packages there are at least. A pattern that finds none would break no rule.
const fewest = 30

// load fails on a package that go itself cannot load: it would have no imports to look at.
func load(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "banger/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			if len(pkgs) < fewest {
				t.Fatalf("go list found %d packages, want %d or more: the rules look at too little", len(pkgs), fewest)
			}
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestDependencies(t *testing.T) {
	for _, p := range load(t) {
		if suite(p.ImportPath) {
			continue
		}
		v := siblings(p)
		for _, r := range rules {
			v = append(v, r.violations(p)...)
		}
		for _, s := range v {
			t.Error(s)
		}
	}
}

// TestRulesBite breaks each rule once: a rule whose pattern has a typing error would hold for ever.
func TestRulesBite(t *testing.T) {
	example := func(pattern string) string {
		if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
			return prefix + "/example"
		}
		return pattern
	}
	for _, r := range rules {
		for _, ban := range r.ban {
			i := example(ban)
			p := pkg{ImportPath: example(r.of), Imports: []string{i}, Deps: []string{i}}
			if len(r.violations(p)) == 0 {
				t.Errorf("%s may import %s, though: %s", p.ImportPath, i, r.reason)
			}
			for _, e := range r.except {
				if p.ImportPath = example(e); len(r.violations(p)) != 0 {
					t.Errorf("%s is excepted from a rule that bites: %s", p.ImportPath, r.reason)
				}
			}
		}
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"vmm/qemu", "vmm/firecracker", false},
		{"disk/qcow2", "disk/copy/sub", false},
		{"vmm/qemu", "vmm", true},
		{"vmm/qemu", "vmm/qemu/qmp", true},
		{"vmm/qemu", "disk", true},
	} {
		if got := siblings(pkg{ImportPath: internal + c.from, Imports: []string{internal + c.to}}); (len(got) == 0) != c.ok {
			t.Errorf("%s importing %s: %v", c.from, c.to, got)
		}
	}
}
