package image

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"banger/internal/vm"
)

// scrub takes out of the new tree what belongs to the machine it was built on or must differ between VMs, and apt's
// options for the build (proxies may carry passwords). An empty machine-id is one that is set at boot.
const scrub = `set -eu
rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/apt/apt.conf.d/99mmdebstrap
rm -f "$1"/etc/ssh/ssh_host_*_key "$1"/etc/ssh/ssh_host_*_key.pub "$1"/var/lib/systemd/random-seed "$1"/var/lib/dbus/machine-id
if [ -e "$1"/etc/machine-id ]; then : > "$1"/etc/machine-id; fi`

// mergedUsr lets packages find /bin and its like as links into /usr from the start. Without it the usrmerge package
// converts the tree, and stays in it with 55 MB of Perl.
const mergedUsr = "/usr/share/mmdebstrap/hooks/merged-usr"

// bootstrap runs mmdebstrap and writes the tree it makes to w as a tar stream. tmp is a directory that it may fill.
// step gets a few words for each part of the work.
func bootstrap(ctx context.Context, r recipe, mirror, tmp string, w io.Writer, step func(string)) error {
	if err := checkBootstrap(ctx); err != nil {
		return err
	}
	env := []string{"SOURCE_DATE_EPOCH=" + r.epoch}
	if os.Geteuid() == 0 {
		env = append(env, "TMPDIR="+tmp) // an ordinary user's directories are closed to the ids that mmdebstrap maps
	}
	_, err := os.Stat(mergedUsr)
	return command{
		args:   bootstrapArgs(r, mirrorLines(r, mirror), hostAptOptions(ctx), os.Geteuid() == 0, err == nil),
		env:    env,
		stdout: w,
		// An ordinary user's mmdebstrap does this itself.
		enclosed: os.Geteuid() == 0,
		line: func(line string) {
			if text, ok := stepOf(line); ok {
				step(text)
			}
		},
	}.run(ctx)
}

func bootstrapArgs(r recipe, mirrors, aptOptions []string, root, mergedUsrHook bool) []string {
	mode, packages := "--mode=unshare", r.packages
	if root {
		mode = "--mode=root"
	}
	args := []string{"mmdebstrap", mode, "--format=tar", "--variant=minbase"}
	if mergedUsrHook {
		args = append(args, "--hook-dir="+mergedUsr)
		packages = append([]string{"usr-is-merged"}, packages...)
	}
	args = append(args, "--include="+strings.Join(packages, ","))
	for _, o := range aptOptions {
		args = append(args, "--aptopt="+strings.TrimSuffix(o, ";"))
	}
	args = append(args, "--customize-hook="+scrub, r.suite, "-")
	return append(args, mirrors...)
}

// mirrorLines is where packages come from: what was asked for, else what the host uses, else nothing, which leaves it
// to mmdebstrap.
func mirrorLines(r recipe, mirror string) []string {
	if mirror == "" {
		return debianLines(hostSources(os.DirFS("/etc/apt")), r.suite, runtime.GOARCH)
	}
	var out []string
	for line := range strings.Lines(mirror) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func hostAptOptions(ctx context.Context) []string {
	dump, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil // no apt on this host, so no options for it
	}
	return aptOptions(string(dump))
}

// stepOf picks the lines that begin a part of the work: "I: extracting archives...".
func stepOf(line string) (string, bool) {
	text, ok := strings.CutPrefix(line, "I: ")
	if !ok || !strings.HasSuffix(text, "...") {
		return "", false
	}
	for _, boring := range []string{"finding", "removing", "main()"} {
		if strings.HasPrefix(text, boring) {
			return "", false
		}
	}
	return strings.TrimSuffix(text, "..."), true
}

// checkBootstrap finds out before anything is made what would fail late and say it badly.
func checkBootstrap(ctx context.Context) error {
	programs := []struct{ name, pkg string }{{"mmdebstrap", "mmdebstrap"}, {"tar", "tar"}}
	if os.Geteuid() != 0 {
		programs = append(programs, struct{ name, pkg string }{"newuidmap", "uidmap"}, struct{ name, pkg string }{"unshare", "util-linux"})
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p.name); err != nil {
			return vm.Errorf(vm.CodeMissing, "%s is not installed", p.name).WithHint("apt install %s", p.pkg)
		}
	}
	for _, pattern := range []string{"/usr/share/keyrings/debian-archive-*", "/etc/apt/trusted.gpg.d/debian-archive-*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return checkNamespace(ctx)
		}
	}
	return vm.Errorf(vm.CodeMissing, "Debian's archive keys are not installed").WithHint("apt install debian-archive-keyring")
}
