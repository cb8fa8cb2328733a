package vmm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// unsure is the error of a boot that tells nothing certain of the host: its VMM never ran, or somebody ended it, or the host
// refused what it may give a moment later. A boot that comes to nothing is none: a KVM that lies looks like that, and costs all
// of that time at each look.
type unsure struct{ error }

// passing are the errors of a host that is short of something, or whose KVM another hypervisor has (EBUSY).
var passing = []syscall.Errno{
	syscall.ENOMEM, syscall.EBUSY, syscall.EAGAIN, syscall.EINTR, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC,
}

// Unsure says that a boot which failed, or did not come to be tried, tells nothing certain of the host.
func Unsure(err error) bool {
	var u unsure
	return errors.As(err, &u) || slices.ContainsFunc(passing, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// numbered is how Rust's programs write an error of the kernel. Its text depends on the libc: Firecracker's has other words
// than glibc, which QEMU is linked to, and Go.
var numbered = regexp.MustCompile(`(?:os error |Os \{ code: |\bError\()(\d{1,3})\b`)

// passes says whether a VMM's last words name a passing error.
func passes(words string) bool {
	for _, m := range numbered.FindAllStringSubmatch(words, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && slices.Contains(passing, syscall.Errno(n)) {
			return true
		}
	}
	words = strings.ToLower(words)
	return slices.ContainsFunc(passing, func(e syscall.Errno) bool { return strings.Contains(words, e.Error()) })
}

// TryAgain tells people how to have KVM tried again, after a boot that failed: an unsure verdict ends with its daemon, any
// other is kept in a file for as long as the host runs.
func TryAgain(unsure bool, file string) string {
	if unsure {
		return "the host may have been short of memory or files, or another hypervisor may use KVM: once that is over, 'banger daemon stop', which VMs outlive, and the next daemon tries it again"
	}
	return fmt.Sprintf("look at the hypervisor of the machine below, its version and its nested virtualization; KVM is tried again after this machine's next boot, or after 'banger daemon stop', which VMs outlive, and: rm %s", file)
}
