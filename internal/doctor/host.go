package doctor

import (
	"context"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/vm"
)

// networks tells which cannot be used: a user who asks for one learns here what it takes.
func (d *Doctor) networks(ctx context.Context) (out []api.Problem) {
	for _, n := range d.Nets {
		if err := n.Probe(ctx); err != nil && ctx.Err() == nil {
			out = append(out, networkUnused.problem([]any{vm.HintOf(err)}, n.Name(), err))
		}
	}
	return out
}

func (d *Doctor) cgroup(uid int) []api.Problem {
	if !d.NoCgroup {
		return nil
	}
	hint := "mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup), and start bangerd anew"
	if uid != 0 {
		hint = "where logind ends what a session leaves (KillUserProcesses=yes), have root run 'loginctl enable-linger' for this user, and start the daemon by 'systemd-run --user --scope banger vm list'"
	}
	return []api.Problem{noCgroup.problem([]any{hint})}
}

// Free space below which doctor warns, and below which no VM begins (the engine refuses it), in bytes.
const (
	enough = 2 << 30
	tooLow = 128 << 20
)

// What the making of a default kernel and of a default image takes at its most, in bytes: 340 and 320 MB, and some more.
const (
	kernelTakes = 400 << 20
	imageTakes  = 400 << 20
)

// making is what the next VM has to have made first, and how many bytes that takes.
type making struct {
	what  string
	takes uint64
}

// firstRun is what a VM stands on and is not there yet. What cannot be read is told by others.
func (d *Doctor) firstRun(ctx context.Context) making {
	kernels, noKernels := d.Store.Kernels(ctx)
	images, noImages := d.Store.Images(ctx)
	switch k, i := noKernels == nil && len(kernels) == 0, noImages == nil && len(images) == 0; {
	case k && i:
		return making{"a kernel and an image", kernelTakes + imageTakes}
	case k:
		return making{"a kernel", kernelTakes}
	case i:
		return making{"an image", imageTakes}
	}
	return making{}
}

// space looks at the file systems that VMs grow on and that initramfs images are made on; often they are one.
func (d *Doctor) space(ctx context.Context) (out []api.Problem) {
	seen := map[uint64]bool{}
	for _, dir := range []string{d.Paths.State, d.Paths.Cache} {
		var file unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(dir, &file) != nil || unix.Statfs(dir, &fs) != nil || seen[file.Dev] {
			continue
		}
		seen[file.Dev] = true
		first := making{}
		if dir == d.Paths.State { // where both are made
			first = d.firstRun(ctx)
		}
		out = append(out, spaceOf(dir, fs.Bavail*uint64(fs.Bsize), first)...)
	}
	return out
}

func spaceOf(dir string, free uint64, first making) []api.Problem {
	switch {
	case free < tooLow:
		return []api.Problem{spaceOut.problem(nil, free>>20, dir)}
	case free < tooLow+first.takes:
		return []api.Problem{spaceFirst.problem(nil, free>>20, dir, (tooLow+first.takes)>>20, first.what)}
	case free < enough:
		return []api.Problem{spaceLow.problem(nil, free>>20, dir)}
	}
	return nil
}

// sbin is where programs of the system lie that an ordinary user's PATH does not lead to; banger looks there too.
var sbin = []string{"", "/usr/sbin/", "/sbin/"}

func installed(program string, dirs []string) bool {
	for _, dir := range dirs {
		if _, err := exec.LookPath(dir + program); err == nil {
			return true
		}
	}
	return false
}

func (d *Doctor) tools(ctx context.Context) (out []api.Problem) {
	canTry := true
	for _, t := range []struct{ program, pkg, what string }{
		{"mmdebstrap", "mmdebstrap", "images cannot be built"},
		{"mkfs.ext4", "e2fsprogs", "disks cannot be made"},
		{"depmod", "kmod", "kernels cannot be imported"},
		{"ssh", "openssh-client", "'banger vm ssh' does not work"},
	} {
		if !installed(t.program, sbin) {
			out = append(out, toolMissing.problem([]any{t.pkg}, t.program, t.what))
			canTry = canTry && t.program != "mmdebstrap"
		}
	}
	if d.CanBuild == nil || !canTry { // said already
		return out
	}
	if err := d.CanBuild(ctx); err != nil && ctx.Err() == nil {
		out = append(out, imageBuild.problem([]any{vm.HintOf(err)}, err))
	}
	return out
}

// sockets are of VMs that run. Who cleans up old files may take them away; what is connected notices nothing.
func sockets(vms []vm.VMRecord) (out []api.Problem) {
	for _, r := range vms {
		if r.State != vm.StateRunning {
			continue
		}
		for _, path := range []string{r.Runtime.APISockPath, r.Runtime.VSockPath} {
			if _, err := os.Stat(path); os.IsNotExist(err) {
				out = append(out, socketGone.problem([]any{r.Name}, r.Name, err))
				break
			}
		}
	}
	return out
}
