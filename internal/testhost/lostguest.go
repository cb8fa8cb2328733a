package testhost

import "regexp"

var lostGuest = regexp.MustCompile(`did not come up: its VMM ended: exit status 0; its console ends with: \[ *[0-9.]+\] (.*)`)

var ownWords = regexp.MustCompile(`panic|reboot:|BUG|Oops|error|EXT4-fs`)

// LostGuest says whether a start failed because the lab's emulated KVM reset the guest in the middle of its kernel's boot,
// without a word of kernel or agent: one in some 150 there. Who meets it may start once more, and must say so.
func LostGuest(stderr string) bool {
	m := lostGuest.FindStringSubmatch(stderr)
	return len(m) == 2 && !ownWords.MatchString(m[1])
}
