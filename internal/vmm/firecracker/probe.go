package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"banger/internal/guest"
	"banger/internal/host/file"
	"banger/internal/host/proc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// The versions this driver is written for: devices are found through ACPI from 1.8 on, and 2 is not there yet. It is
// tested with Tested.
const (
	Tested    = "1.12.1"
	Supported = "1.8 or later, below 2"
	minMinor  = 8
)

// findings is what was found out about Firecracker on this host. Kept in firecracker.json, it holds for one boot and one
// program.
type findings struct {
	BootID  string `json:"boot_id"`
	Binary  string `json:"binary"`
	Size    int64  `json:"size"`     // of the binary, which with ModTime tells an upgrade without running it
	ModTime int64  `json:"mod_time"` // ns since 1970
	Version string `json:"version"`
	Proven  bool   `json:"proven"` // a guest booted
	Tried   bool   `json:"tried"`
	Why     string `json:"why"` // the end of a sentence, for people

	Jailer string `json:"-"`
	jailer stamp  // of the jailer
	hint   string
	unsure bool // see vmm.Unsure
	// pending says that no boot could be tried yet, for want of a kernel.
	pending bool
}

// Probe implements vmm.Driver. The first caller of a boot pays: the program is tried, and where KVM looks usable a guest
// is booted. The verdicts are kept in memory and in firecracker.json.
func (d *Driver) Probe(ctx context.Context) vmm.Probe {
	f, err := d.find(ctx)
	if err != nil {
		return vmm.Probe{Why: err.Error(), Hint: vm.HintOf(err)}
	}
	p := vmm.Probe{Usable: f.Proven, Pending: f.pending, Binary: f.Binary, Version: f.Version, Why: f.Why, Hint: f.hint}
	if f.Proven {
		p.Accel = "kvm"
	}
	return p
}

func (d *Driver) find(ctx context.Context) (findings, error) {
	select {
	case d.probing <- struct{}{}:
		defer func() { <-d.probing }()
	case <-ctx.Done():
		return findings{}, fmt.Errorf("probe firecracker: %w", ctx.Err())
	}
	f, err := d.programs()
	if err != nil {
		return findings{}, fmt.Errorf("probe firecracker: %w", err)
	}
	if d.found == nil || !d.found.same(f) || d.found.Jailer != f.Jailer || d.found.jailer != f.jailer {
		if f, err = d.recall(ctx, f); err != nil {
			return findings{}, fmt.Errorf("probe firecracker: %w", err)
		}
		d.found = &f
	}
	f, err = d.judge(ctx, *d.found)
	if err != nil {
		return findings{}, fmt.Errorf("probe firecracker: %w", err)
	}
	if f.Tried && !d.found.Tried { // what else was seen is of this moment only
		d.found = &f
	}
	return f, nil
}

// same says that these are about the same program in the same boot of the host.
func (f findings) same(key findings) bool {
	return f.BootID != "" && f.BootID == key.BootID && f.Binary == key.Binary && f.Size == key.Size && f.ModTime == key.ModTime
}

// programs finds what is to be run. Nothing is known of it yet.
func (d *Driver) programs() (findings, error) {
	binary, jailer, err := d.locate()
	if err != nil {
		return findings{}, err
	}
	if binary, err = Program(binary); err != nil {
		return findings{}, err
	}
	fi, err := os.Stat(binary)
	if err != nil {
		return findings{}, vm.Errorf(vm.CodeMissing, "look at %s: %w", binary, err)
	}
	f := findings{BootID: proc.BootID(), Binary: binary, Size: fi.Size(), ModTime: fi.ModTime().UnixNano()}
	if d.jails() {
		f.Jailer, f.jailer, err = jailerOf(jailer, binary)
	}
	return f, err
}

// recall completes what programs found by what an earlier daemon found out, else by running it.
func (d *Driver) recall(ctx context.Context, f findings) (findings, error) {
	var err error
	if known, ok := load(d.stateFile, f); ok {
		f.Version, f.Proven, f.Tried, f.Why = known.Version, known.Proven, known.Tried, known.Why
	} else if f.Version, err = d.version(ctx, f); err != nil {
		return findings{}, err
	}
	if f.Jailer != "" {
		err = fits(ctx, f)
	}
	return f, err
}

// Program finds a program, by its path or its name in PATH, and all symlinks' end: the jailer opens it by its own name.
func Program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", vm.Errorf(vm.CodeMissing, "find %s: %w", name, err).
			WithHint("banger vmm install firecracker, or give its path in config.toml ([firecracker] binary, jailer)")
	}
	return path, nil
}

func (d *Driver) version(ctx context.Context, f findings) (string, error) {
	name, version, err := Version(ctx, f.Binary)
	if err == nil && name != "Firecracker" {
		err = vm.Errorf(vm.CodeMissing, "use %s: it says that it is %s", f.Binary, name)
	}
	if err != nil {
		return "", err
	}
	if err := Supports(version); err != nil {
		return "", vm.Errorf(vm.CodeMissing, "use %s: %w", f.Binary, err).WithHint("banger vmm install firecracker gets %s", Tested)
	}
	return version, nil
}

// Version runs a program with --version and returns what it says that it is: "Firecracker" or "Jailer", and "1.12.1".
func Version(ctx context.Context, program string) (name, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err == nil {
		name, version, err = parseVersion(out)
	}
	if err != nil {
		return "", "", vm.Errorf(vm.CodeMissing, "run %s --version: %w", program, err)
	}
	return name, version, nil
}

var versionPattern = regexp.MustCompile(`^(Firecracker|Jailer) v(\d{1,4}\.\d{1,4}\.\d{1,4})(-\S*)?\s`)

// parseVersion takes name and number out of what --version prints: "Firecracker v1.12.1".
func parseVersion(out []byte) (name, version string, err error) {
	m := versionPattern.FindSubmatch(append(out, '\n'))
	if m == nil {
		first, _, _ := bytes.Cut(out, []byte("\n"))
		return "", "", fmt.Errorf("it says %.80q", first)
	}
	return string(m[1]), string(m[2]), nil
}

// Supports says why this driver cannot work with a version; nil when it can.
func Supports(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	if err != nil || major != "1" || n < minMinor {
		return fmt.Errorf("version %s is not supported: want %s", version, Supported)
	}
	return nil
}

// judge fills in whether guests run: KVM has to look usable each time, and the place of the jails, and one guest to have
// booted in this boot.
func (d *Driver) judge(ctx context.Context, f findings) (findings, error) {
	if options := forbidden(d.vms); d.jails() && options != "" {
		f.Proven, f.Why = false, fmt.Sprintf("no jail works in %s, which is mounted %s: a jail holds a program and device nodes", d.vms, options)
		f.hint = "mount -o remount,dev,exec its file system, or put banger onto another one (BANGER_ROOT=DIR)"
		return f, nil
	}
	if v := d.host.Look(); !v.Usable {
		f.Proven, f.Why, f.hint = false, v.Why, v.Hint
		return f, nil
	}
	if f.Tried {
		if !f.Proven {
			f.hint = vmm.TryAgain(f.unsure, d.stateFile)
		}
		return f, nil
	}
	if d.proveBoot == nil {
		f.Why = "KVM is unproven: no boot under it was tried"
		return f, nil
	}
	b, err := d.proveBoot(ctx)
	if err != nil {
		f.pending, f.Why = true, "KVM is unproven: nothing to boot: "+err.Error()
		return f, ctx.Err()
	}
	defer b.Done()
	took, err := prove(ctx, f.Binary, b, filepath.Dir(d.stateFile))
	switch {
	case ctx.Err() != nil:
		return f, ctx.Err()
	case err != nil:
		f.Why, f.unsure = "a guest does not boot: "+err.Error(), vmm.Unsure(err)
		f.hint = vmm.TryAgain(f.unsure, d.stateFile)
	default:
		f.Proven, f.Why = true, fmt.Sprintf("a guest booted under KVM in %d ms", took.Milliseconds())
	}
	f.Tried = true
	d.log.Info("tried Firecracker", "proven", f.Proven, "why", f.Why)
	if f.unsure { // holds for this daemon alone
		return f, nil
	}
	if err := save(ctx, d.stateFile, f); err != nil {
		d.log.Warn("Firecracker will be proven again at the next start", "error", err)
	}
	return f, nil
}

// provingTime bounds the boot that proves KVM. A working one takes a fraction of a second, one on a KVM that is itself
// emulated some seconds.
const provingTime = 40 * time.Second

// prove boots a guest with guest.ArgProve, and returns how long that took.
func prove(ctx context.Context, binary string, b vmm.Bootable, dir string) (time.Duration, error) {
	conf, err := json.Marshal(Machine{
		BootSource:    BootSource{KernelImagePath: b.Kernel, InitrdPath: b.Initramfs, BootArgs: "console=ttyS0 quiet panic=-1 reboot=k pci=off " + guest.ArgProve + "=1"},
		Drives:        []Drive{},
		MachineConfig: MachineConfig{VCPUCount: 1, MemSizeMiB: 256},
	})
	if err != nil {
		return 0, err
	}
	f, remove, err := file.Temp(ctx, "proof", dir, ".prove-*.json")
	if err != nil {
		return 0, err
	}
	defer remove()
	_, err = f.Write(conf)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return vmm.Prove(ctx, provingTime, binary, "--no-api", "--config-file", f.Name())
}

// load reads what an earlier daemon of the same boot found out about the same program. Everything else, a corrupt file
// included, is not known.
func load(path string, key findings) (f findings, known bool) {
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &f) != nil {
		return f, false
	}
	return f, f.same(key) && f.Version != ""
}

func save(ctx context.Context, path string, f findings) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.Write(ctx, "findings", path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
