package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"banger/internal/host/proc"
	"banger/internal/host/tsc"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Probe implements vmm.Driver. The first caller of a boot pays: QEMU is tried, the time stamp counter measured, and,
// where it looks usable, KVM proven by a boot. The verdicts are kept in memory and in probe.json.
func (d *Driver) Probe(ctx context.Context) vmm.Probe {
	f, err := d.find(ctx)
	if err != nil {
		return vmm.Probe{Why: err.Error(), Hint: vm.HintOf(err)}
	}
	p := vmm.Probe{Usable: true, Binary: f.Binary, Version: f.Version, Accel: "kvm", Why: f.KVMWhy}
	if !f.kvm() {
		p.Accel = "tcg"
		p.Why = "software emulation, since " + f.KVMWhy
		switch p.Hint = f.kvmHint; f.KVM {
		case kvmUnknown:
			p.Hint = "banger kernel import gets a kernel to try it with"
		case kvmDisproven:
			p.Hint = vmm.TryAgain(f.unsure, d.stateFile)
		}
		if !sound(f.Version) {
			p.Limit = "all processors of a guest share one of this host's, and its programs lie at known addresses; from 8.1 on neither has to be"
		}
	}
	return p
}

// find returns what is known of the host, finding it out first if nobody did.
func (d *Driver) find(ctx context.Context) (findings, error) {
	select {
	case d.probing <- struct{}{}:
		defer func() { <-d.probing }()
	case <-ctx.Done():
		return findings{}, fmt.Errorf("probe qemu: %w", ctx.Err())
	}
	if d.found == nil {
		f, err := d.lookAtHost(ctx)
		if err != nil {
			return findings{}, fmt.Errorf("probe qemu: %w", err)
		}
		d.found = &f
	}
	f, err := d.settle(ctx)
	if err != nil {
		return findings{}, fmt.Errorf("probe qemu: %w", err)
	}
	return f, nil
}

// settle returns what was found, with the verdict on KVM of this moment: its device may go and come back, and on a new host
// the first question comes before the first kernel. Only what a boot proved is remembered. Callers hold d.probing.
func (d *Driver) settle(ctx context.Context) (findings, error) {
	f := *d.found
	if err := d.judgeKVM(ctx, &f); err != nil {
		return findings{}, err
	}
	if f.KVM == d.found.KVM || f.KVM != kvmProven && f.KVM != kvmDisproven {
		return f, nil
	}
	d.found = &f
	if f.unsure { // holds for this daemon alone
		return f, nil
	}
	if err := saveFindings(ctx, d.stateFile, f); err != nil {
		d.log.Warn("KVM will be proven again at the next start", "error", err)
	}
	return f, nil
}

func (d *Driver) lookAtHost(ctx context.Context) (findings, error) {
	binary, err := exec.LookPath(d.binary)
	if err != nil {
		return findings{}, vm.Errorf(vm.CodeMissing, "find %s: %w", d.binary, err).
			WithHint("install QEMU: apt-get install qemu-system-x86")
	}
	program, err := os.Stat(binary)
	if err != nil {
		return findings{}, vm.Errorf(vm.CodeMissing, "look at %s: %w", binary, err)
	}
	f, known := loadFindings(d.stateFile, findings{
		BootID: proc.BootID(), Binary: binary, Size: program.Size(), ModTime: program.ModTime().UnixNano(),
	})
	if known {
		return f, nil
	}
	if err := d.tryQEMU(ctx, &f); err != nil {
		return findings{}, err
	}
	if err := saveFindings(ctx, d.stateFile, f); err != nil {
		d.log.Warn("the host will be probed again at the next start", "error", err)
	}
	return f, nil
}

// tryQEMU fills in what only running it tells, and the rate of the clock its guests will read.
func (d *Driver) tryQEMU(ctx context.Context, f *findings) error {
	out, err := exec.CommandContext(ctx, f.Binary, "-version").Output()
	if err != nil {
		return vm.Errorf(vm.CodeMissing, "run %s -version: %w", f.Binary, err)
	}
	if f.Version, err = parseVersion(out); err != nil {
		return vm.Errorf(vm.CodeMissing, "run %s -version: %w", f.Binary, err)
	}
	if f.Sandbox, err = trial(ctx, f.Binary); err != nil {
		return err
	}
	if f.TSCKHz, err = tsc.KHz(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.log.Warn("guests calibrate their clocks themselves, which is slow and may hang", "error", err)
	}
	return nil
}

// judgeKVM fills in the verdict on KVM. That the device opens proves nothing: below a hypervisor without nesting it
// opens, QEMU starts, and a stock kernel hangs.
func (d *Driver) judgeKVM(ctx context.Context, f *findings) error {
	if v := d.host.Look(); !v.Usable {
		f.KVM, f.KVMWhy, f.kvmHint = kvmUnusable, v.Why, v.Hint
		return nil
	}
	if f.KVM == kvmProven || f.KVM == kvmDisproven {
		return nil // remembered
	}
	if d.proveBoot == nil {
		f.KVM, f.KVMWhy = kvmUnknown, "KVM is unproven: no boot under it was tried"
		return nil
	}
	b, err := d.proveBoot(ctx)
	if err != nil {
		f.KVM, f.KVMWhy = kvmUnknown, "KVM is unproven: nothing to boot: "+err.Error()
		return ctx.Err()
	}
	defer b.Done()
	if err := tryKVM(ctx, f, b); err != nil {
		return err
	}
	d.log.Info("tried KVM", "verdict", f.KVM, "why", f.KVMWhy)
	return nil
}

// tryKVM boots a guest with one processor after the other until one is proven. The error is that of ctx.
func tryKVM(ctx context.Context, f *findings, b vmm.Bootable) error {
	var whys []string
	unsure := false
	for _, cpu := range kvmCPUs {
		took, err := prove(ctx, f.Binary, accelArguments(machine{kvm: true, cpu: cpu}, 1), b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			f.KVM, f.KVMCPU = kvmProven, cpu
			f.KVMWhy = fmt.Sprintf("a guest booted under KVM, with processor %s, in %d ms", cpu, took.Milliseconds())
			return nil
		}
		unsure = unsure || vmm.Unsure(err)
		whys = append(whys, fmt.Sprintf("with processor %s: %v", cpu, err))
	}
	f.unsure = unsure
	f.KVM, f.KVMWhy = kvmDisproven, "a guest under KVM does not boot: "+strings.Join(whys, "; ")
	return nil
}

var versionPattern = regexp.MustCompile(`^QEMU emulator version (\d{1,4}\.\d{1,4}(\.\d{1,4})?)\b`)

// parseVersion takes the number out of what -version prints: "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(out []byte) (string, error) {
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		first, _, _ := bytes.Cut(out, []byte("\n"))
		return "", fmt.Errorf("it says %.80q", first)
	}
	return string(m[1]), nil
}

// sound says whether emulated processors may run at the same time, a thread each. Before 8.1 one could translate code that
// another was just changing, and a Linux that patches itself panicked now and then (QEMU: "accel/tcg: Always lock pages
// before translation"). Seen, too: 7.2 translates a program again wherever else it is loaded, 10.0 does not.
func sound(version string) bool {
	var major, minor int
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor)
	return major > 8 || major == 8 && minor >= 1
}
