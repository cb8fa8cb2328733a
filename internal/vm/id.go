package vm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// ID identifies a VM for its whole life: 12 lower-case hex digits. Names of host objects are derived from it,
// so it must stay short enough for an interface name ("bt" + ID is 14 of the 15 bytes the kernel allows).
type ID string

// NewID draws a random ID.
func NewID() ID {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return ID(hex.EncodeToString(b[:]))
}

// No regular expressions in this package: compiling them would cost each boot of a guest milliseconds.

// ParseID checks the form of s.
func ParseID(s string) (ID, error) {
	if len(s) != 12 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%q is not a VM id (12 hex digits)", s)
	}
	return ID(s), nil
}

// ValidateName refuses what is not a DNS label (RFC 1123): names become host names and NAME.vm.
func ValidateName(name string) error {
	if _, err := ParseID(name); err == nil { // it could be taken for another VM's id
		return Errorf(CodeInvalid, "VM name %q looks like a VM id", name).WithHint("use a name that is not 12 hex digits")
	}
	const alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"
	if n := len(name); n >= 1 && n <= 63 && strings.Trim(name, alphanumeric+"-") == "" &&
		strings.IndexByte(alphanumeric, name[0]) >= 0 && strings.IndexByte(alphanumeric, name[n-1]) >= 0 {
		return nil
	}
	return Errorf(CodeInvalid, "VM name %q is not a DNS label", name).
		WithHint("use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
}
