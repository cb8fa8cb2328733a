// Package binary keeps the programs of VMMs: it gets Firecracker and its jailer from a release, an archive, a directory or
// a file, and tells which of them are to be run.
//
// What is installed is a directory Dir/firecracker/VERSION:
//
//	firecracker, jailer   static ELF programs, mode 0755
//	vmm.json              where they came from and their digests, as they were installed
//
// It is written under Dir/.staging-* and published whole by one rename. Nothing is executed, not even for its version,
// that was not checked against a digest first.
//
// The package must not start VMMs or know what one is: what a program says and which versions are of use it is told by the
// driver (Programs).
package binary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger/internal/act"
	"banger/internal/api"
	"banger/internal/flight"
	"banger/internal/inventory"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Name is the VMM that can be installed.
const Name = "firecracker"

// Names inside the directory of a version, and of the programs themselves.
const (
	progVMM    = "firecracker"
	progJailer = "jailer"
	fileRecord = "vmm.json"

	saysVMM, saysJailer = "Firecracker", "Jailer" // that they are, with --version
)

// Programs is what the driver knows of the programs.
type Programs struct {
	Tested    string // the version that is installed when none is asked for
	Supported string // the versions of use, in words
	// Supports says why a version is of no use; nil when it is.
	Supports func(version string) error
	// Version runs a program and returns what it says that it is: "Firecracker" or "Jailer", and "1.12.1".
	Version func(ctx context.Context, program string) (name, version string, err error)
	// Resolve finds a program by its path or by its name in PATH; the path it returns has no links in it.
	Resolve func(name string) (path string, err error)
	// Probe says whether VMs can be run with the program that Locate returns.
	Probe func(ctx context.Context) vmm.Probe
}

// Config wires a Library.
type Config struct {
	Dir            string // of what is installed; absolute, made when needed
	Binary, Jailer string // as configured: absolute paths, names in PATH, or empty
	// Release is the URL of one version's archive.
	Release  func(version string) string
	Programs Programs

	// Users are the names of the VMs that are started with what Locate tells. Nil = there are none.
	Users func(ctx context.Context) ([]string, error)
}

// Library is the programs of one daemon. Its methods may be called at the same time, except Reconcile.
type Library struct {
	Config
	pins     map[string]pin
	client   *http.Client
	stall    time.Duration // how long a download may stand still
	installs flight.Group[api.VMM]
	making   *inventory.Work
	digests  digests
}

// New makes a library over c. It touches nothing.
func New(c Config) *Library {
	return &Library{Config: c, pins: pins, client: newClient(), stall: stallTime, making: new(inventory.Work)}
}

// Close cancels the installs that still run and waits until they have cleaned up. Afterwards none begins.
func (l *Library) Close() {
	l.installs.Close()
	l.client.CloseIdleConnections()
}

var versionPattern = regexp.MustCompile(`^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$`)

// known refuses the name of a VMM that is not kept here.
func known(name string) error {
	if name == Name {
		return nil
	}
	e := vm.Errorf(vm.CodeNotFound, "no VMM named %q can be installed", name).WithHint("there is %s", Name)
	if name == "qemu" {
		return e.WithHint("QEMU comes with the distribution: apt-get install qemu-system-x86; banger doctor says whether it is of use")
	}
	return e
}

// record is vmm.json: how a version came here.
type record struct {
	Version      string    `json:"version"`
	Digest       string    `json:"digest"` // sha256:HEX
	JailerDigest string    `json:"jailer_digest"`
	Source       string    `json:"source"`
	Checked      string    `json:"checked"` // api.Checked…
	InstalledAt  time.Time `json:"installed_at"`
}

func (l *Library) versionDir(version string) string { return filepath.Join(l.Dir, Name, version) }

// read returns the record of an installed version, its programs being there.
func (l *Library) read(version string) (r record, err error) {
	dir := l.versionDir(version)
	b, err := os.ReadFile(filepath.Join(dir, fileRecord))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", filepath.Join(dir, fileRecord), err)
	}
	if r.Version != version {
		return r, fmt.Errorf("%s is about version %q", filepath.Join(dir, fileRecord), r.Version)
	}
	for _, name := range []string{progVMM, progJailer} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return r, err
		}
		if !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
			return r, fmt.Errorf("%s is not an executable file", filepath.Join(dir, name))
		}
	}
	return r, nil
}

// versions are the directories of installed versions, newest first. What they hold is not looked at.
func (l *Library) versions() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.Dir, Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list installed versions of %s: %w", Name, err)
	}
	var all []string
	for _, e := range entries {
		if versionPattern.MatchString(e.Name()) {
			all = append(all, e.Name())
		}
	}
	slices.SortFunc(all, func(a, b string) int { return slices.Compare(numbers(b), numbers(a)) })
	return all, nil
}

func numbers(version string) (n []int) {
	for _, part := range strings.Split(version, ".") {
		i, _ := strconv.Atoi(part) // versionPattern has seen it
		n = append(n, i)
	}
	return n
}

// Reconcile removes what the installs of a daemon that died have left. Call it before the first Install.
func (l *Library) Reconcile(ctx context.Context) error {
	left, err := l.leftovers()
	errs := []error{err}
	for _, dir := range left {
		errs = append(errs, act.Do(ctx, "staging.remove", func() error { return os.RemoveAll(dir) }))
	}
	return errors.Join(errs...)
}

// leftovers are the staging directories.
func (l *Library) leftovers() ([]string, error) {
	return filepath.Glob(filepath.Join(l.Dir, stagingPrefix+"*"))
}
