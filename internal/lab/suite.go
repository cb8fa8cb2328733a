package lab

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/crashtest"
	"banger/internal/testhost"
)

// suiteTime bounds one package's tests. Everything takes many times as long as on the host.
const suiteTime = 40 * time.Minute

// required is what the lab has: a test that misses one of these fails.
var required = []string{
	string(testhost.Root), string(testhost.KVM), string(testhost.DM), string(testhost.Loop), string(testhost.Tun),
	string(testhost.QEMU), string(testhost.Ext4), string(testhost.XFS), string(testhost.IP), string(testhost.SSH),
	string(testhost.Cgroup), string(testhost.Controllers), string(testhost.Depmod), string(testhost.Guest),
	string(testhost.Firecracker), string(testhost.NFT), string(testhost.RSync), string(testhost.SSHFS), string(testhost.Ansible),
}

// extra is what the tests of one package get beside what all get.
type extra struct {
	prepare func(*Lab, context.Context) error
	env     []string
	tests   []string // only these are run; empty: all
	skip    string   // of these, go test's pattern of what is not
}

var extras = map[string]extra{
	// The lab's kernel, Linux 6.12, closes descriptors in an exec before the new program's memory is there: a process that was
	// just started has its parent's arguments for a moment, and proc.Args returns them.
	"./internal/host/proc": {skip: "^TestArgsDuringExec$"},
	// The built product with real guests. Where it runs on other drivers than these, it fails.
	"./internal/e2e": {
		prepare: (*Lab).prove,
		env:     []string{testhost.SeedVar + "=" + SeedDir, "BANGER_TEST_DRIVERS=firecracker dmsnap bridge", "BANGER_CRASH_EVERY=15"},
		// A start takes five seconds here, a command half of one. So what would show nothing of Firecracker, its disks or its
		// network that these do not is left to QEMU on the host: devices within the guest, and what clients do to one another.
		tests: []string{
			"TestMainJob",                   // run, stop, start, kill; both disks are kept
			"TestRunAndRemove",              // exit codes and streams of a VM of one command
			"TestStopSettlesTheDisks",       // and a start after it
			"TestALostRecordLeavesOrphans",  // a VM whose row is gone: its process, tap, loops, dm and jail are found
			"TestInOneVM",                   // exec, its streams and exit codes, signals, cp, ssh, scp, sftp, network; not what the guest alone does
			"TestSSHTools",                  // rsync, git, sshfs, ansible, forwards, agents, terminals
			"TestImagesByHand",              // a tar, a qcow2 and an ext4 disk imported, VMs of each, commits of two kinds of disks
			"TestBuildWithAScript",          // in a VM; one of packages takes a mirror, and no VM
			"TestTheImagesInitIsPID1",       // systemd; devices within the guest are left to the host
			"TestTheDaemonIsKilled",         // VMs are adopted, without scratch files too; both die
			"TestTheVMMIsKilled",            // and a guest that ends by itself
			"TestTheJailerIsKilled",         // before it has become the VMM, alone and with the daemon
			"TestKilledClientLeavesNothing", // run --rm cut off
			"TestAVMHoldsItsOwnOnly",        // descriptors, through the jailer
			"TestJobs",                      // and the client or the daemon killed under them
			"TestPorts",                     // connections, datagrams and the daemon's death under them
			"TestMatrix",                    // the daemon, the VMM and the client killed at points that they pass; not those of images and kernels
		},
		skip: "TestInOneVM/(orphans|twenty|modules|disks|logs|copies|large)|TestTheDaemonIsKilled/both|TestPorts/(a_thousand|with_no)", // the second the seed scenario has
	},
}

// Suite runs the tests of packages ("./internal/host/dm") in the lab as root, each in its own directory beside its
// testdata, with the product and Firecracker there (Equip). Each test's result becomes a subtest of t. What the lab
// must have and a test finds missing is a failure.
func (l *Lab) Suite(t *testing.T, pkgs ...string) {
	t.Helper()
	ctx := t.Context()
	if err := l.Equip(ctx); err != nil {
		t.Fatal(err)
	}
	stage := t.TempDir()
	for _, pkg := range pkgs {
		if err := l.compile(ctx, pkg, stage); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.send(ctx, stage, RepoDir); err != nil {
		t.Fatalf("send tests into the lab: %v", err)
	}
	for _, pkg := range pkgs {
		t.Run(strings.TrimPrefix(pkg, "./"), func(t *testing.T) { l.run(t, pkg) })
	}
}

// compile stages a package's test binary and testdata as they lie in the source tree.
func (l *Lab) compile(ctx context.Context, pkg, stage string) error {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	binary := filepath.Join(stage, testBinary(pkg))
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, pkg)
	cmd.Dir = l.Repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.WaitDelay = patience
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w\n%s", pkg, errors.Join(err, context.Cause(ctx)), out)
	}
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("package %s has no tests", pkg)
	}
	data := filepath.Join(l.Repo, pkg, "testdata")
	if _, err := os.Stat(data); err != nil {
		return nil
	}
	return symlink(data, filepath.Join(stage, pkg, "testdata"))
}

// testBinary is the path of a package's test binary, below the repository.
func testBinary(pkg string) string { return filepath.Join(pkg, filepath.Base(pkg)+".test") }

// run runs one package's tests and makes their results subtests of t. Where the lab dies under them, those that have not
// ended are run in the next one.
func (l *Lab) run(t *testing.T, pkg string) {
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(t.Context(), suiteTime+time.Minute, fmt.Errorf("no end after %v", suiteTime+time.Minute))
	defer cancel()
	more := extras[pkg]
	wanted := wantedOf(pkg)
	if wanted != "" {
		more.tests = nil
		t.Logf("of %s only %s", pkg, wanted)
	}
	if len(more.tests) > 0 {
		t.Logf("of %s only these are run here: %s", pkg, strings.Join(more.tests, ", "))
	}
	if more.skip != "" {
		t.Logf("of %s these are not run here: %s", pkg, more.skip)
	}
	var done []string // ended, in whichever lab
	n := map[string]int{}
	for {
		if more.prepare != nil {
			if err := more.prepare(l, ctx); err != nil {
				t.Fatalf("prepare the lab for the tests of %s: %v", pkg, err)
			}
		}
		all, code, err := l.attempt(ctx, t, pkg, cmp.Or(wanted, more.pattern()), without(more.skip, done))
		var open []string
		for _, r := range all.subs {
			if r.action == "" {
				open = append(open, r.name)
			} else {
				done = append(done, r.name)
			}
		}
		all.count(n)
		if (err != nil || code == failed) && l.revive(t, strings.Join(open, ", ")) {
			continue
		}
		if err != nil {
			t.Errorf("run the tests of %s: %v", pkg, err)
		}
		if err != nil || code == failed {
			t.Logf("the lab's console:\n%s", l.console())
		}
		all.close(t, code, len(done))
		break
	}
	if err := l.crashResults(t.Context()); err != nil {
		t.Errorf("fetch what the crash tests recorded: %v", err)
	}
	for _, name := range more.tests {
		if !slices.Contains(done, name) {
			t.Errorf("%s: %s was not run to its end", pkg, name)
		}
	}
	t.Logf("%s: %d passed, %d failed, %d skipped in %.1f s", pkg, n["pass"], n["fail"], n["skip"], time.Since(begin).Seconds())
}

// attempt runs a package's tests, with patterns as go test's -run and -skip, until they or the lab end. What ends is
// replayed at once.
func (l *Lab) attempt(ctx context.Context, t *testing.T, pkg, run, skip string) (all *result, code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	offset, err := crashtest.Offset(l.Repo) // there is no commit in there
	if err != nil {
		return &result{}, 0, err
	}
	tests := l.command(ctx, where{dir: filepath.Join(RepoDir, pkg), env: append([]string{
		"CI=true", "BANGER_TEST_LAB=1", "BANGER_TEST_REAL=1", "BANGER_TEST_REQUIRE=" + strings.Join(required, ","),
		"BANGER_FIRECRACKER_DIR=" + FirecrackerDir, crashtest.ResultsEnv + "=" + resultsFile,
		crashtest.OffsetEnv + "=" + strconv.Itoa(offset),
	}, extras[pkg].env...)}, filepath.Join(RepoDir, testBinary(pkg)),
		"-test.v=test2json", "-test.paniconexit0", "-test.timeout="+suiteTime.String(), "-test.run="+run, "-test.skip="+skip)
	events := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", pkg) // without -t no test says how long it took
	events.Dir = l.Repo
	events.WaitDelay = patience

	from, to := io.Pipe()
	tests.Stdout, tests.Stderr = to, to
	events.Stdin = from
	stream, err := events.StdoutPipe()
	if err == nil {
		err = events.Start()
	}
	if err != nil {
		return &result{}, 0, fmt.Errorf("read the tests' output: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		var err error
		code, err = exitCode(ctx, tests, tests.Run())
		_ = to.Close()
		ended <- err
	}()
	all, err = read(stream, func(r *result) { r.replay(t, required) })
	if err != nil {
		cancel() // nobody reads on
		_ = from.Close()
	}
	err = errors.Join(err, <-ended, events.Wait())
	return all, code, err
}

// without is a pattern for -skip that also leaves out these tests. They come first: go test asks no further than the first
// alternative that fits, and one with a subtest fits its test in part, which skips nothing.
func without(skip string, tests []string) string {
	if len(tests) == 0 {
		return skip
	}
	more := "^(" + strings.Join(tests, "|") + ")$"
	if skip == "" {
		return more
	}
	return more + "|" + skip
}

// resultsFile is where crash tests in the lab record their cases.
const resultsFile = "/srv/crash-results"

// crashResults adds what was recorded there to what is recorded here, once.
func (l *Lab) crashResults(ctx context.Context) error {
	text, err := l.output(ctx, "sh", "-c", "[ ! -e "+resultsFile+" ] || { cat "+resultsFile+"; rm "+resultsFile+"; }")
	if err != nil {
		return err
	}
	all, err := crashtest.ReadResults([]byte(text))
	if err != nil {
		return err
	}
	return crashtest.Append(all)
}

// wantedOf is what is left of this process's own -run below a package's subtest: what is run again alone brings no other
// test of the package with it.
func wantedOf(pkg string) string {
	depth := 1 + strings.Count(pkg, "/") + 1 // TestLab/suites stands for the dot
	parts := strings.Split(flag.Lookup("test.run").Value.String(), "/")
	if len(parts) <= depth {
		return ""
	}
	return strings.Join(parts[depth:], "/")
}

// pattern is that of go test's -run.
func (e extra) pattern() string {
	if len(e.tests) == 0 {
		return "."
	}
	return "^(" + strings.Join(e.tests, "|") + ")$"
}

// close reports what no test's own result has told: tests that never ended, and the end of the binary itself, after done
// tests in all.
func (r *result) close(t *testing.T, code, done int) {
	for _, s := range r.subs {
		if s.action == "" {
			s.replay(t, required)
		}
	}
	switch {
	case code != 0 && !t.Failed():
		t.Errorf("the tests ended with exit code %d:\n%s", code, strings.Join(r.output, "\n"))
	case code == 0 && done == 0:
		t.Error("there was no test to run")
	}
}
