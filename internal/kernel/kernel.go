// Package kernel is the library of guest kernels: it imports them from Debian packages or from the host, keeps each
// under the digest of its content, and makes the initramfs that boots one.
//
// A kernel on disk is a directory Dir/<sha256 hex>:
//
//	vmlinux        the uncompressed ELF that a VMM enters by its PVH note
//	modules.ext4   read-only disk for /lib/modules/RELEASE: every module, decompressed, and depmod's indexes
//	boot/          the few modules an initramfs needs (decompressed), and their load order: order, order.vsock
//	kernel.json    the vm.Kernel as it was imported
//
// It is written under Dir/.staging-* and published whole by one rename; nothing in it changes afterwards. A digest is
// known only when everything is unpacked, so here the row follows the object: the digest is announced before (Config.Unnamed),
// and Reconcile removes what a crash between the two left.
//
// The package must not know about VMs, VMMs or SQL, and installs nothing on the host.
package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"banger/internal/catalog"
	"banger/internal/flight"
	"banger/internal/hold"
	"banger/internal/inventory"
	"banger/internal/vm"
)

// DefaultSource is where vm.DefaultKernel comes from: Debian's metapackage of its newest 6.12 cloud kernel.
const DefaultSource = "apt:linux-image-6.12-cloud-amd64"

// Names inside a kernel's directory.
const (
	fileVmlinux = "vmlinux"
	fileModules = "modules.ext4"
	fileRecord  = "kernel.json"
	dirBoot     = "boot"
	fileOrder   = "order"       // in dirBoot: modules for disk and network, one file name per line, in load order
	fileVSock   = "order.vsock" // in dirBoot: what a vsock channel needs on top of these
)

// Records keeps which kernels there are, one row per name. internal/store implements it.
type Records interface {
	// PutKernel commits a kernel under its name, replacing what had the name.
	PutKernel(ctx context.Context, k vm.Kernel) error
	Kernels(ctx context.Context) ([]vm.Kernel, error)
	// KernelByName and KernelByDigest answer vm.CodeNotFound when there is none.
	KernelByName(ctx context.Context, name string) (vm.Kernel, error)
	KernelByDigest(ctx context.Context, digest string) (vm.Kernel, error)
	// DeleteKernel removes a name in one transaction, unless VMs are of the digest: it returns their names then. last says
	// that no other name has the digest.
	DeleteKernel(ctx context.Context, name, digest string) (users []string, last bool, err error)
	// AddKernel is PutKernel for a name that none has: vm.CodeExists.
	AddKernel(ctx context.Context, k vm.Kernel) error
	// KernelUsers are the names and the VMs that have a digest.
	KernelUsers(ctx context.Context, digest string) (names, vms []string, err error)
}

// Config wires a Library. Directories are absolute and made when needed.
type Config struct {
	Dir          string // of the kernels
	InitramfsDir string // a cache: may be emptied while no daemon runs
	Guest        Guest
	Records      Records

	// Pinned lists the digests that VMs were made with. A name moves to another kernel at its next import, its VMs do
	// not. It fails unless the list is whole: without one, or when it fails, Reconcile cannot tell a leftover from a
	// VM's kernel, and removes neither.
	Pinned func(ctx context.Context) ([]string, error)

	// Unnamed knows what may lie on the disk without a name. nil: everything there may.
	Unnamed catalog.Unnamed
}

// Guest is banger-guest, the init of every initramfs.
type Guest struct {
	Key    string // another one for each build
	Binary func() ([]byte, error)
}

// Library is the kernels of one daemon. Its methods may be called at the same time, except Reconcile.
type Library struct {
	Config
	host    string // root of the host's file system, for "installed"; another one in tests
	imports flight.Group[vm.Kernel]
	making  *inventory.Work
	builds  flight.Group[string]
	uses    hold.Set // of digests: by VMs and imports before their record is committed
}

// New makes a library over c. It touches nothing.
func New(c Config) *Library {
	return &Library{Config: c, host: "/", making: new(inventory.Work)}
}

// Close cancels the imports that still run and waits until they have cleaned up. Afterwards nothing new is made
// (vm.CodeCanceled); what is there can still be read.
func (l *Library) Close() {
	l.imports.Close()
	l.builds.Close()
}

// Boot is what a VMM needs to boot one kernel: absolute paths, and the release (uname -r) that names the directory
// its modules disk is mounted at.
type Boot struct {
	Vmlinux     string
	Initramfs   string
	ModulesDisk string // ext4, to be attached read-only
	Release     string
}

// List returns all kernels by name.
func (l *Library) List(ctx context.Context) ([]vm.Kernel, error) { return l.Records.Kernels(ctx) }

// Get returns the kernel of that name; vm.CodeNotFound, with a hint naming those there are.
func (l *Library) Get(ctx context.Context, name string) (vm.Kernel, error) {
	k, err := l.Records.KernelByName(ctx, name)
	if vm.CodeOf(err) != vm.CodeNotFound {
		return k, err
	}
	all, listErr := l.Records.Kernels(ctx)
	if listErr != nil {
		return vm.Kernel{}, listErr
	}
	here := "there are none yet"
	if len(all) > 0 {
		names := make([]string, len(all))
		for i, k := range all {
			names[i] = k.Name
		}
		slices.Sort(names)
		here = "there are: " + strings.Join(names, ", ")
		if near := vm.Nearest(name, names); near != "" {
			here = "did you mean " + near + "? " + here
		}
	}
	return vm.Kernel{}, vm.Errorf(vm.CodeNotFound, "no kernel named %q", name).
		WithHint("%s; get one by: banger kernel import", here)
}

// Known refuses a name that is neither a kernel's nor the default one, with vm.CodeNotFound.
func (l *Library) Known(ctx context.Context, name string) error {
	if name == vm.DefaultKernel {
		return nil
	}
	_, err := l.Get(ctx, name)
	return err
}

// Ensure returns the kernel of that name with its files there. The default kernel is imported when it is missing;
// any other must have been imported before: vm.CodeNotFound.
func (l *Library) Ensure(ctx context.Context, name string, report vm.Report) (vm.Kernel, error) {
	k, err := l.Get(ctx, name)
	if err == nil {
		if err = l.check(k.Digest); err == nil {
			return k, nil
		}
		err = vm.Errorf(vm.CodeCorrupt, "use kernel %s: %w", name, err).WithHint("import it again, from %s", k.Source)
	} else if vm.CodeOf(err) != vm.CodeNotFound {
		return vm.Kernel{}, err
	}
	if name != vm.DefaultKernel {
		return vm.Kernel{}, err
	}
	return l.Import(ctx, name, DefaultSource, report)
}

var (
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hexPattern    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// path is the directory of a kernel. A digest comes from rows and from outside: what is none must not become a path.
func (l *Library) path(digest string) (string, error) {
	if !digestPattern.MatchString(digest) {
		return "", vm.Errorf(vm.CodeInvalid, "%q is not a kernel digest (sha256:<64 hex digits>)", digest)
	}
	return filepath.Join(l.Dir, strings.TrimPrefix(digest, "sha256:")), nil
}

// check says what is missing of a kernel's directory; nil when it is whole.
func (l *Library) check(digest string) error {
	dir, err := l.path(digest)
	if err != nil {
		return err
	}
	for _, name := range []string{fileVmlinux, fileModules, fileRecord, filepath.Join(dirBoot, fileOrder)} {
		st, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s has no %s", dir, name)
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", filepath.Join(dir, name))
		}
	}
	return nil
}

// Boot returns the files that boot the kernel of this digest, and makes the initramfs around the guest binary when
// there is none yet. It needs no row: a VM keeps its kernel when the name has moved on. vm.CodeNotFound when there is
// no such kernel.
func (l *Library) Boot(ctx context.Context, digest string) (Boot, error) {
	dir, err := l.path(digest)
	if err != nil {
		return Boot{}, err
	}
	record, err := readRecord(filepath.Join(dir, fileRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return Boot{}, vm.Errorf(vm.CodeNotFound, "no kernel %s in %s", digest, l.Dir).
			WithHint("see banger kernel list, and import it again")
	}
	if err != nil {
		return Boot{}, vm.Errorf(vm.CodeCorrupt, "boot kernel %s: %w", digest, err).WithHint("import it again")
	}
	if err := l.check(digest); err != nil {
		return Boot{}, vm.Errorf(vm.CodeCorrupt, "boot kernel %s: %w", digest, err).WithHint("import it again")
	}
	img, err := l.initramfs(ctx, digest)
	if err != nil {
		return Boot{}, err
	}
	return Boot{
		Vmlinux:     filepath.Join(dir, fileVmlinux),
		Initramfs:   img,
		ModulesDisk: filepath.Join(dir, fileModules),
		Release:     record.Release,
	}, nil
}

func readRecord(path string) (vm.Kernel, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return vm.Kernel{}, err
	}
	var k vm.Kernel
	if err := json.Unmarshal(b, &k); err != nil {
		return vm.Kernel{}, fmt.Errorf("read %s: %w", path, err)
	}
	if !releasePattern.MatchString(k.Release) {
		return vm.Kernel{}, fmt.Errorf("read %s: %q is not a kernel release", path, k.Release)
	}
	return k, nil
}
