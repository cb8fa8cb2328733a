package crashtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var impatient = flag.Bool("impatient", false, "end at the first case that fails")

var mutate = flag.Bool("mutate", false, "break the order of things in the product, one way after the other, and see that the crashes here find it")

// A mutant is the product with one deliberate break: other text in some of its files. Nothing of it is in the product;
// the compiler is given the other files (go build -overlay).
type mutant struct {
	name  string
	edits []edit
	tests string // those that are to find it
}

type edit struct{ file, old, new string } // file below internal; old is there once

var mutants = []mutant{
	{"none", nil, "TestCrashAtEveryPoint/create$"}, // must not be found
	{"the row is deleted first", []edit{{
		"engine/stop.go", "	done := w.stage(r, \"remove\")\n",
		"	if err := w.e.Store.DeleteVM(ctx, r.ID); err != nil {\n		return err\n	}\n	done := w.stage(r, \"remove\")\n",
	}}, "TestCrashAtEveryPoint/delete,_running"},
	{"the row is made last", []edit{
		{"engine/create.go", "		created, err := e.Store.CreateVM(ctx, r, leases...)\n",
			"		if err := act.Do(ctx, \"vm-directory\", func() error { return os.MkdirAll(r.Runtime.VMDir, 0o700) }); err != nil {\n			return r, err\n		}\n		created, err := e.Store.CreateVM(ctx, r, leases...)\n"},
		{"engine/create.go", "import (\n", "import (\n	\"os\"\n	\"banger/internal/act\"\n"},
	}, "TestCrashAtEveryPoint/create$"},
	{"the scratch file is not written", []edit{{
		"handles/handles.go", "return replace(dir, append(b, '\\n'))", "_, _ = replace, b; return nil",
	}}, "TestCrashAtEveryPoint/create_and_start"},
	{"the boot id is ignored", []edit{{
		"handles/handles.go", "		c.seed(id, entry{h, true})\n", "		h.BootID = bootID\n		c.seed(id, entry{h, false})\n",
	}}, "TestCrashAtEveryPoint/daemon_start,_after_a_reboot_that_gave_its_pid_away"},
	{"the pid is trusted", []edit{
		{"handles/handles.go", "		c.seed(id, entry{h, true})\n", "		c.seed(id, entry{h, false})\n"},
		{"vmm/fake/host.go", "p != nil && p.id == id {", "p != nil {"}, // as a kernel that is asked by pid alone
	}, "TestCrashAtEveryPoint/daemon_start,_its_VMM's_pid_is_another's"},
	{"the clean-up stops at the first error", []edit{{
		"engine/stop.go", "		err = errors.Join(err, fmt.Errorf(\"detach network %s: %w\", r.Network, nerr))\n",
		"		return errors.Join(err, fmt.Errorf(\"detach network %s: %w\", r.Network, nerr))\n",
	}}, "TestCleanUpDoesEveryStep"},
	{"the clean-up forgets a kind of object", []edit{{
		"engine/stop.go", "	if cerr := w.e.Cgroups.Remove(ctx, r.ID); cerr != nil {\n		err = errors.Join(err, cerr)\n	}\n", "",
	}}, "TestCrashAtEveryPoint/stop"},
	{"an interface is plugged and not joined", []edit{{
		"engine/reach.go", "		net, err = w.attach(booting, r)\n", "		net, err = w.plug(booting, r)\n",
	}}, "TestCrashAtEveryPoint/create_and_start$"},
	{"a session outlives its daemon", []edit{{
		"engine/worker.go", "	w.session.over = recovering // a session dies with its daemon\n", "",
	}}, "TestCrashAtEveryPoint/run_--rm"},
	{"ports are left to who asks for them", []edit{{
		"engine/worker.go", "	ports := w.publish(ctx, step, r, mark)\n", "	ports := time.Duration(mark * 0)\n",
	}}, "TestCrashAtEveryPoint/daemon_start,_a_VM_publishes_ports"},
	{"half-written files are left", []edit{{
		"daemon/assemble.go", "	joinLogged(log, \"clear away half-written files\", places.Clear(ctx, placeOf(p)))\n", "	_ = places.Clear\n",
	}}, "TestCrashAtEveryPoint/create_and_start$"},
	{"the intent's generation is ignored", []edit{{
		"store/vms.go", "		if r.Generation != generation {\n", "		if false && r.Generation != generation {\n",
	}}, "TestIntentsChangeAtEveryPoint"},
	{"what probes of disks left is not swept", []edit{{
		"daemon/assemble.go", "disk.Sweep(ctx, drivers.Disks, placeOf(p))", "func() error { _ = disk.Sweep; return nil }()",
	}}, "TestCrashAtEveryPoint/create$"},
	{"a killed process is not waited for", []edit{{
		"engine/kill.go", "	ctx, cancel := context.WithTimeout(ctx, killGrace)\n	defer cancel()\n", "	if true {\n		return nil\n	}\n	ctx, cancel := context.WithTimeout(ctx, killGrace)\n	defer cancel()\n",
	}}, "TestCrashAtEveryPoint/delete,_running$"},
	{"VMMs are not looked for by their sockets before the clean-up", []edit{{
		"engine/kill.go", "	for err == nil {\n		id, ok", "	for err == nil && false {\n		id, ok",
	}}, "TestCleanUpLooksForTheVMM"},
	{"run directories are left", []edit{{
		"engine/stop.go", "	if rerr := file.RemoveTree(ctx, \"run-directory\", w.e.Paths.VMRun(r.ID)); rerr != nil {\n		err = errors.Join(err, fmt.Errorf(\"remove the VM's sockets: %w\", rerr))\n	}\n", "",
	}}, "TestCrashAtEveryPoint/reset,_running"},
	{"a start that fails takes the work disk with it", []edit{{
		"engine/start.go", "	if err := g.Wait(); err != nil {\n", "	if err := g.Wait(); err != nil {\n		_ = os.Remove(rt.WorkDiskPath)\n",
	}}, "TestRandomLives"},
}

// TestMutantsApply holds that the breaks are still of the product as it is; to make them takes minutes.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		for _, e := range m.edits {
			text, err := os.ReadFile(filepath.Join("..", e.file))
			if n := strings.Count(string(text), e.old); err != nil || n != 1 {
				t.Errorf("%s: %s has %q %d times, want it once; %v", m.name, e.file, e.old, n, err)
			}
		}
	}
}

// TestMutantsAreFound runs the tests here over each mutant, all of which must fail: what finds no break proves nothing.
func TestMutantsAreFound(t *testing.T) {
	if !*mutate {
		t.Skip("takes minutes: go test ./internal/crashtest -run TestMutantsAreFound -mutate")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			dir, replace := t.TempDir(), map[string]string{}
			for i, e := range m.edits {
				path, err := filepath.Abs(filepath.Join("..", filepath.FromSlash(e.file)))
				if err != nil {
					t.Fatal(err)
				}
				from, broken := path, filepath.Join(dir, itoa(i)+".go")
				if replace[path] != "" { // broken in two places
					from, broken = replace[path], replace[path]
				}
				text, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(string(text), e.old); n != 1 {
					t.Fatalf("%s has %d times what is to be broken: the product has changed, change the mutant too", e.file, n)
				}
				if err := os.WriteFile(broken, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o600); err != nil {
					t.Fatal(err)
				}
				replace[path] = broken
			}
			overlay, err := json.Marshal(map[string]any{"Replace": replace})
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(dir, "crash.test")
			build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("the mutant does not compile: %v\n%s", err, out)
			}
			var out bytes.Buffer
			cmd := exec.Command(program, "-test.run", m.tests, "-impatient", "-test.timeout", "10m")
			cmd.Stdout, cmd.Stderr = &out, &out
			err = cmd.Run()
			found := err != nil && strings.Contains(out.String(), "--- FAIL: ")
			if found != (len(m.edits) > 0) {
				t.Errorf("found: %v, %v\n%s", found, err, out.String())
			}
			t.Logf("%.600s", out.String())
		})
	}
}
