// Package testhost is what tests of the real host stand on: Need asks for what a test cannot do without, Leaks
// compares the host before and after it, and SeedRoot gives a root with a kernel and an image. BANGER_TEST_SEED names a
// root to take these from, and BANGER_TEST_LAB=1 says that nobody else uses the host; internal/lab sets both.
//
// Only tests and scripts/host-diff may import it. It must not know a VM's life: it sees processes, mounts, links.
package testhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Facility is something a test needs of the host.
type Facility string

// The facilities.
const (
	Real        Facility = "real"        // asked for with BANGER_TEST_REAL=1: boots guests, or takes more than two seconds
	Root        Facility = "root"        // effective uid 0
	QEMU        Facility = "qemu"        // qemu-system-x86_64 and qemu-img
	KVM         Facility = "kvm"         // hardware virtualization that a guest can use, not only /dev/kvm
	Loop        Facility = "loop"        // loop devices can be set up
	Tun         Facility = "tun"         // tap devices can be made
	DM          Facility = "dm"          // device-mapper
	Ext4        Facility = "ext4"        // mkfs.ext4
	SSH         Facility = "ssh"         // the ssh client
	RSync       Facility = "rsync"       // the rsync program
	Time        Facility = "time"        // GNU's program of that name
	SSHFS       Facility = "sshfs"       // sshfs, and a kernel with FUSE
	Ansible     Facility = "ansible"     // the ansible program
	Bash        Facility = "bash"        // bash, and the package bash-completion
	Zsh         Facility = "zsh"         // the shell
	Fish        Facility = "fish"        // the shell
	Firecracker Facility = "firecracker" // firecracker and jailer
	Mmdebstrap  Facility = "mmdebstrap"  // images can be built from Debian packages
	Apt         Facility = "apt"         // apt-get, and a mirror that answers: only trying tells
	Depmod      Facility = "depmod"      // modules can be indexed
	IP          Facility = "ip"          // the ip program
	NFT         Facility = "nft"         // the nft program, and a kernel that filters packets by it
	XFS         Facility = "xfs"         // mkfs.xfs, and a kernel that mounts what it makes: a file system with reflinks
	Cgroup      Facility = "cgroup"      // a cgroup v2 hierarchy that may be written to
	Controllers Facility = "controllers" // its memory and cpu controllers; in hybrid mode v1 has them
	Userns      Facility = "userns"      // an ordinary user with ids of its own may be root in a user namespace; only trying tells
	Guest       Facility = "guest"       // the guest's binary, which make build puts in its place
)

// BashCompletion is what a shell of bash reads for its completions.
const BashCompletion = "/usr/share/bash-completion/bash_completion"

// Need skips the test with the reason when the host lacks one of these. Where the environment says that it must not
// (CI=true, BANGER_TEST_REQUIRE=1 or a list such as "loop,dm"), the test fails instead. Real is a request and not a
// facility: without it the test is skipped everywhere.
func Need(t testing.TB, needs ...Facility) {
	t.Helper()
	if slices.Contains(needs, Real) && os.Getenv("BANGER_TEST_REAL") != "1" {
		t.Skip("needs BANGER_TEST_REAL=1: boots real guests, or is slow")
	}
	for _, f := range needs {
		if err := f.check(); err != nil {
			Lacks(t, f, err)
		}
	}
}

// Lacks ends the test as Need does, for a facility that a test found missing by trying to use it.
func Lacks(t testing.TB, f Facility, err error) {
	t.Helper()
	if required(f, os.Getenv("BANGER_TEST_REQUIRE"), os.Getenv("CI")) {
		t.Fatalf("needs %s, and this host is required to have it: %v", f, err)
	}
	t.Skipf("needs %s: %v", f, err)
}

// rare is what a machine for continuous integration may truly lack.
var rare = []Facility{KVM, DM, Firecracker, Controllers}

// required decides from the two variables whether a missing facility is a failure.
func required(f Facility, require, ci string) bool {
	switch {
	case require == "0":
		return false
	case require == "1", require == "" && ci == "true":
		return !slices.Contains(rare, f)
	}
	return slices.Contains(strings.Split(require, ","), string(f))
}

func (f Facility) check() error {
	switch f {
	case Real:
		return nil
	case Root:
		if os.Geteuid() != 0 {
			return errors.New("not root")
		}
		return nil
	case QEMU:
		return programs("qemu-system-x86_64", "qemu-img")
	case KVM:
		return kvm()
	case Loop:
		return loop()
	case Tun:
		return tun()
	case DM:
		return openable("/dev/mapper/control")
	case Ext4:
		return programs("mkfs.ext4")
	case SSH:
		return programs("ssh")
	case RSync:
		return programs("rsync")
	case Time:
		return programs("time")
	case SSHFS:
		return errors.Join(programs("sshfs", "fusermount3"), openable("/dev/fuse"))
	case Ansible:
		return programs("ansible")
	case Zsh, Fish:
		return programs(string(f))
	case Bash:
		_, err := os.Stat(BashCompletion)
		return errors.Join(programs("bash"), err)
	case Firecracker:
		return programs("firecracker", "jailer")
	case Mmdebstrap:
		return programs("mmdebstrap")
	case Apt:
		return programs("apt-get")
	case Depmod:
		return programs("depmod")
	case IP:
		return programs("ip")
	case NFT:
		return nft()
	case XFS:
		return errors.Join(programs("mkfs.xfs"), fileSystem("xfs"))
	case Userns:
		return nil // an ordinary user has to try
	case Controllers:
		return nil // only a cgroup with limits shows it
	case Cgroup:
		return cgroup2()
	case Guest:
		return guest()
	}
	return fmt.Errorf("no facility is called %q", string(f))
}

func programs(names ...string) error {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			if _, err := os.Stat("/usr/sbin/" + n); err != nil {
				return fmt.Errorf("program %s is missing", n)
			}
		}
	}
	return nil
}
