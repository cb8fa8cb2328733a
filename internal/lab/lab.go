// Package lab is a machine with real KVM and real device-mapper for tests, on hosts that have neither: an ordinary
// banger VM under systemd. What the lab needs, banger can do. Compiled tests and the built product are copied in and
// run there; a hard reset of it is a host's power cut.
//
// Only tests and scripts import it. It uses the built bin/banger as a user would, and must not reach into a VM by
// another way.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testhost"
)

const (
	name   = "lab" // of the VM in its root
	memory = "4G"
	vcpus  = "2"
)

// Options of Start.
type Options struct {
	Repo  string                           // top of the source tree, with bin/banger built
	Cache string                           // what is kept between runs; empty: as Cache
	Log   func(format string, args ...any) // told what happens and how long it took
}

// Cache is where things are kept between runs: BANGER_TEST_CACHE, else .cache/test of the source tree.
func Cache(repo string) string {
	if dir := os.Getenv("BANGER_TEST_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(repo, ".cache", "test")
}

// Lab is one running lab. Its methods may be called by several goroutines, but for HardReset and Close.
type Lab struct {
	Options
	Dir string // holds all of it, removed by Close

	qemu    string         // directory of a QEMU that may run two processors at once; empty: the host's, with one
	keeper  *exec.Cmd      // takes the lab down, below
	release io.WriteCloser // tells it to
	said    *os.File       // by it

	equipped bool // with the product and Firecracker
	deaths   int  // of its own kernel
}

// Up starts a lab that is closed with the test. It fails where the lab leaves anything on the host.
func Up(t testing.TB) *Lab {
	t.Helper()
	testhost.Need(t, testhost.QEMU, testhost.Mmdebstrap)
	testhost.Leaks(t)
	l, err := Start(t.Context(), Options{Repo: testhost.Repo(t), Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Start brings a lab up: it builds the image when the recipe's is not in the cache, starts the VM in a root of its own,
// waits until it is ready for services, and loads the modules. On an error nothing is left.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Cache == "" {
		o.Cache = Cache(o.Repo)
	}
	l := &Lab{Options: o}
	if err := l.emulator(ctx); err != nil {
		return nil, err
	}
	if l.Dir, err = os.MkdirTemp("", "lab-"); err != nil { // short: a socket path has 107 bytes
		return nil, err
	}
	if err := l.keep(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.Dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	image, err := l.image(ctx)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if _, err := l.banger(ctx, "vm", "run", "-d", "-q", "--name", name, "--image", image, "--vcpu", l.vcpus(), "--memory", memory); err != nil {
		return nil, err
	}
	if err := l.ready(ctx); err != nil {
		return nil, err
	}
	l.Log("lab: up in %.1f s", time.Since(begin).Seconds())
	return l, nil
}

func (l *Lab) root() string    { return filepath.Join(l.Dir, "r") }
func (l *Lab) program() string { return filepath.Join(l.Repo, "bin", "banger") }

// keeperScript takes everything down once its input ends: because the lab was closed, or because whoever opened it was
// killed, or timed out, or was interrupted. VMs outlive those who made them, and a lab holds 4 GiB.
const keeperScript = `
read -r _ || :
if [ -e "$BANGER_ROOT/banger.db" ]; then
    timeout 120 "$0" vm delete -q lab || : # it may never have been made
    left=$(timeout 60 "$0" vm list --json | tr -d '[:space:]')
    timeout 60 "$0" daemon stop || :
    if [ "$left" != '[]' ]; then
        echo "VMs left in $BANGER_ROOT: $left"
        exit 1
    fi
fi
rm -rf "$1"
`

// keep starts the keeper, in a session of its own: Ctrl-C must not reach it.
func (l *Lab) keep() (err error) {
	if l.said, err = os.Create(filepath.Join(l.Dir, "keeper.log")); err != nil {
		return err
	}
	l.keeper = exec.Command("sh", "-c", keeperScript, l.program(), l.Dir)
	l.keeper.Env = l.env()
	l.keeper.Stdout, l.keeper.Stderr = l.said, l.said
	l.keeper.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if l.release, err = l.keeper.StdinPipe(); err == nil {
		err = l.keeper.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start the lab's keeper: %w", err), l.said.Close())
	}
	return nil
}

// Close deletes the lab: the VM, its daemon, its root.
func (l *Lab) Close() error {
	err := errors.Join(l.release.Close(), l.keeper.Wait())
	if err != nil {
		text := make([]byte, 4096)
		n, _ := l.said.ReadAt(text, 0)
		err = fmt.Errorf("close the lab in %s: %w\n%s", l.Dir, err, text[:n])
	}
	return errors.Join(err, l.said.Close())
}

func (l *Lab) env() []string {
	env := append(os.Environ(), "BANGER_ROOT="+l.root(), "NO_COLOR=1")
	if l.qemu != "" {
		env = append(env, "PATH="+l.qemu+":"+os.Getenv("PATH"))
	}
	return env
}

// banger runs one command of the CLI to its end and returns its output.
func (l *Lab) banger(ctx context.Context, args ...string) (string, error) {
	return l.host(ctx, l.program(), args...)
}

// host runs a program on the host to its end and returns its output.
func (l *Lab) host(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = l.env()
	cmd.Dir = l.Repo
	cmd.WaitDelay = patience
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), stderr.String())
	}
	return stdout.String(), nil
}
