// Package doctor looks for what is wrong or could be better on this host. Problems users meet are registered values:
// a stable code, a severity, a text, a hint. It repairs nothing.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"banger/internal/api"
	"banger/internal/disk"
	"banger/internal/inventory"
	"banger/internal/network"
	"banger/internal/paths"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// Severities, worst first.
const (
	severityError   = "error"   // the main job does not work
	severityWarning = "warning" // something does not, or soon will not
	severityInfo    = "info"    // good to know
)

// kind is one registered problem; text and hint are formats.
type kind struct{ code, severity, text, hint string }

// The problems. Codes are stable: scripts may look for them.
var (
	vmmMissing    = kind{"vmm-missing", severityError, "VMM %s cannot be used: %s", "%s"}
	vmmUnused     = kind{"vmm-unused", severityInfo, "VMM %s cannot be used: %s", "%s"}
	emulated      = kind{"emulated", severityWarning, "VMs run under software emulation (%s %s), %s: %s", "%s"}
	vmmOld        = kind{"vmm-old", severityInfo, "%s %s: %s", "install a newer %s"}
	accelerated   = kind{"accelerated", severityInfo, "%s %s runs VMs with hardware virtualization, %s: %s", ""}
	automatic     = kind{"auto", severityInfo, "new VMs run under %s, on network %s", "--vmm and --network ask for others"}
	automaticNext = kind{"auto", severityInfo, "new VMs run under %s, on network %s, if it proves to run guests when there is a kernel", "--vmm and --network ask for others"}
	passedOver    = kind{"auto-passed-over", severityWarning, "new VMs run under %s, %s", "%s"}
	nothingFits   = kind{"auto-none", severityError, "no new VM can run: %s", "%s"}
	vmmDamaged    = kind{"vmm-damaged", severityWarning, "%s %s, which banger has installed, is of no use: %s", "banger vmm install %s --version %s gets it anew, banger vmm delete %s %s removes it"}
	vmmsUnread    = kind{"vmms-unknown", severityWarning, "which VMMs are installed could not be found out: %s", "%s has what the daemon saw"}
	noJail        = kind{"no-jail", severityWarning, "jail = false in config.toml: Firecracker VMs run as user %d of this host, with no jail around them. A guest that breaks out of its VMM is that user, and can reach every file and every VM of theirs", "take it out of [firecracker] in config.toml; a VM has its jail from its next start on"}
	noLimits      = kind{"no-limits", severityWarning, "VMs under %s may take all of this host's memory and processors: %s", "boot the host with cgroup v2 alone: systemd.unified_cgroup_hierarchy=1 on its kernel's command line"}
	unjailed      = kind{"unjailed", severityWarning, "VM %s runs with no jail around it, as user %d of this host: it was started when jails were off", "banger vm restart %s puts it into one"}
	jailsUnknown  = kind{"jails-unknown", severityWarning, "whether each VM is in a jail could not be found out: %s", "%s has what the daemon saw"}
	diskDriver    = kind{"disk-driver", severityInfo, "system disks are made by %s: %s", ""}
	diskBroken    = kind{"disk-broken", severityError, "no disk driver works: %s", "%s"}
	networkUnused = kind{"network-unused", severityInfo, "network %s cannot be used: %s", "%s"}
	noCgroup      = kind{"no-cgroup", severityInfo, "VMs have no cgroup of their own: they run in the session or service that bangerd was started from, within its limits", "%s"}
	socketGone    = kind{"socket-gone", severityWarning, "VM %s runs, but its socket is gone, and the next daemon will not reach it: %s", "banger vm restart %s makes it anew"}
	spaceOut      = kind{"space-out", severityError, "%d MiB are free in %s: no VM starts, and those that run stop when they write", "free some there: 'banger vm prune' removes VMs that do not run, 'banger vm list' shows all. With BANGER_ROOT=DIR all of banger's is elsewhere"}
	spaceFirst    = kind{"space-low", severityWarning, "%d MiB are free in %s, too few: the next 'banger vm run' takes some %d, since it has to make %s", "free some there. With BANGER_ROOT=DIR all of banger's is elsewhere"}
	spaceLow      = kind{"space-low", severityWarning, "%d MiB are free in %s", "a VM begins small and may grow to the size of its disks: free some there, as 'banger vm prune' and 'banger image prune' do. With BANGER_ROOT=DIR all of banger's is elsewhere"}
	noImage       = kind{"no-image", severityInfo, "there is no image yet", "the first 'banger vm run' builds one; 'banger image build debian-bookworm' does it now"}
	imageBuild    = kind{"image-build", severityWarning, "images cannot be built: %s", "%s"}
	toolMissing   = kind{"tool-missing", severityWarning, "%s is not installed: %s", "apt-get install %s"}
	orphan        = kind{"orphan", severityWarning, "%s %s is left over: %s", "%s"}
	lookFailed    = kind{"orphans-unknown", severityWarning, "not all of what may be left over could be found out: %s", "%s has what the daemon saw"}
	databaseError = kind{"database", severityError, "the database cannot be read: %s", "%s"}
)

func (k kind) problem(hintArgs []any, args ...any) api.Problem {
	p := api.Problem{Code: k.code, Severity: k.severity, Text: fmt.Sprintf(k.text, args...), Hint: k.hint}
	if len(hintArgs) > 0 {
		p.Hint = fmt.Sprintf(k.hint, hintArgs...)
	}
	return p
}

// Records is what doctor reads of the database.
type Records interface {
	VMs(ctx context.Context) ([]vm.VMRecord, error)
	Images(ctx context.Context) ([]vm.Image, error)
	Kernels(ctx context.Context) ([]vm.Kernel, error)
}

// Config wires a Doctor.
type Config struct {
	Paths paths.Paths
	Store Records
	VMMs  []vmm.Driver
	Disks []disk.Driver
	Nets  []network.Driver

	// Auto is what a VM gets that asks for neither VMM nor network.
	Auto func(ctx context.Context) (vmm.Auto, error)
	// Inventory tells what of the host is ours. What could be found is returned beside an error; nil = nobody looks.
	Inventory func(ctx context.Context) ([]inventory.Finding, error)
	// Programs are those of VMMs that can be installed. Nil = there are none.
	Programs func(ctx context.Context) ([]api.VMM, error)
	// Unlimited says why VMs cannot be held within the limits that they should have; empty when they can. Nil = they can.
	Unlimited func() string
	NoJail    bool // Firecracker's VMMs are to run outside jails
	NoCgroup  bool // VMs have none of their own
	// CanBuild says why no image can be built, programs that are missing aside; nil = nobody asks.
	CanBuild func(ctx context.Context) error
	// Unjailed tells the names of the VMs that run outside a jail where new ones get one; nil = there are none.
	Unjailed func(ctx context.Context) ([]string, error)
}

// Doctor checks one host.
type Doctor struct{ Config }

// New makes a Doctor.
func New(c Config) *Doctor { return &Doctor{c} }

// Check looks at everything and returns what it found, never nil.
func (d *Doctor) Check(ctx context.Context) []api.Problem {
	problems := []api.Problem{}
	found, takes := d.vmms(ctx)
	problems = append(problems, found...)
	problems = append(problems, d.programs(ctx)...)
	problems = append(problems, d.jails(ctx, os.Geteuid())...)
	problems = append(problems, d.limits(ctx)...)
	problems = append(problems, d.disks(ctx, takes)...)
	problems = append(problems, d.networks(ctx)...)
	problems = append(problems, d.cgroup(os.Geteuid())...)
	problems = append(problems, d.space(ctx)...)
	problems = append(problems, d.tools(ctx)...)
	return append(problems, d.records(ctx)...)
}

// vmms tells how VMs run, which VMMs cannot be used (one that can be is enough), and which a new VM takes: the name is
// empty when there is none.
func (d *Doctor) vmms(ctx context.Context) (out []api.Problem, takes string) {
	probes := make([]vmm.Probe, len(d.VMMs))
	absent := vmmMissing
	for i, driver := range d.VMMs {
		if probes[i] = driver.Probe(ctx); probes[i].Usable {
			absent = vmmUnused
		}
	}
	for i, p := range probes {
		switch name := d.VMMs[i].Name(); {
		case !p.Usable:
			out = append(out, absent.problem([]any{p.Hint}, name, p.Why))
		case p.Accel == "kvm":
			out = append(out, accelerated.problem(nil, name, p.Version, vmm.Speed(p.Accel), p.Why))
		default:
			out = append(out, emulated.problem([]any{p.Hint}, name, p.Version, vmm.Speed(p.Accel), p.Why))
		}
		if p.Usable && p.Limit != "" {
			name := d.VMMs[i].Name()
			out = append(out, vmmOld.problem([]any{name}, name, p.Version, p.Limit))
		}
	}
	auto, err := d.Auto(ctx)
	switch {
	case err == nil && auto.Pending:
		out = append(out, automaticNext.problem(nil, auto.VMM, auto.Network))
	case err == nil:
		out = append(out, automatic.problem(nil, auto.VMM, auto.Network))
	case absent == vmmUnused: // else it was said already
		out = append(out, nothingFits.problem([]any{vm.HintOf(err)}, err))
	}
	if auto.Passed != nil {
		out = append(out, passedOver.problem([]any{cmp.Or(vm.HintOf(auto.Passed), "take that out of the way; a VM keeps the VMM that it was made for")}, auto.VMM, auto.Passed))
	}
	return out, auto.VMM
}

// programs tells which installed ones are not what was installed, or of no use: another may silently be used in their place.
// What is wrong with those that others have put there is said by the VMM that is to run them.
func (d *Doctor) programs(ctx context.Context) (out []api.Problem) {
	if d.Programs == nil {
		return nil
	}
	all, err := d.Programs(ctx)
	if err != nil {
		return []api.Problem{vmmsUnread.problem([]any{d.Paths.DaemonLog()}, err)}
	}
	for _, v := range all {
		if v.Origin == api.OriginInstalled && v.Error != "" {
			out = append(out, vmmDamaged.problem([]any{v.Name, v.Version, v.Name, v.Version}, v.Name, v.Version, v.Error))
		}
	}
	return out
}

// jails says what it means that VMMs run as the daemon's own user: all of them, or those that were started when they did.
func (d *Doctor) jails(ctx context.Context, uid int) (out []api.Problem) {
	if d.NoJail {
		return []api.Problem{noJail.problem(nil, uid)}
	}
	if d.Unjailed == nil {
		return nil
	}
	names, err := d.Unjailed(ctx)
	for _, name := range names {
		out = append(out, unjailed.problem([]any{name}, name, uid))
	}
	if err != nil {
		out = append(out, jailsUnknown.problem([]any{d.Paths.DaemonLog()}, err))
	}
	return out
}

// limits says which usable VMMs have VMs that should be held within limits and are not.
func (d *Doctor) limits(ctx context.Context) (out []api.Problem) {
	if d.Unlimited == nil || d.NoCgroup { // that says it
		return nil
	}
	why := d.Unlimited()
	for _, driver := range d.VMMs {
		if why != "" && driver.Features().Overhead > 0 && driver.Probe(ctx).Usable {
			out = append(out, noLimits.problem(nil, driver.Name(), why))
		}
	}
	return out
}

func (d *Doctor) disks(ctx context.Context, vmm string) []api.Problem {
	if vmm == "" {
		return nil // said already, and no VM could use a disk
	}
	driver, why, err := disk.Choose(ctx, d.Disks, disk.Auto, vmm, d.Paths.State, d.Paths.VMs())
	if err != nil {
		hint := vm.HintOf(err)
		if hint == "" {
			hint = "qemu-img (apt-get install qemu-utils) makes disks for QEMU; room in " + d.Paths.VMs() + ", and the right to write there, it takes in any case"
		}
		return []api.Problem{diskBroken.problem([]any{hint}, err)}
	}
	return []api.Problem{diskDriver.problem(nil, driver.Name(), why)}
}

func (d *Doctor) records(ctx context.Context) (out []api.Problem) {
	images, err := d.Store.Images(ctx)
	if err != nil {
		return []api.Problem{databaseError.problem([]any{vm.HintOf(err)}, err)}
	}
	if len(images) == 0 {
		out = append(out, noImage.problem(nil))
	}
	vms, err := d.Store.VMs(ctx)
	if err != nil {
		return append(out, databaseError.problem([]any{vm.HintOf(err)}, err))
	}
	out = append(out, sockets(vms)...)
	return append(out, d.orphans(ctx)...)
}
