package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// setIdentity writes what makes this guest itself: host name, the files around it, machine-id. previous is the ID of the
// last configuration: after a fork its machine-id is another guest's.
func setIdentity(c *guest.Configure, previous string) error {
	var errs []error
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		errs = append(errs, fmt.Errorf("set host name: %w", err))
	}
	errs = append(errs,
		edit("/etc/hostname", func(string) string { return c.Hostname + "\n" }),
		edit("/etc/hosts", func(old string) string { return hostsFor(old, c.Hostname) }),
		edit("/etc/machine-id", func(old string) string { return machineIDFor(old, previous, c.ID) }),
	)
	if c.Network != nil && len(c.Network.Nameservers) > 0 {
		errs = append(errs, edit("/etc/resolv.conf", func(string) string { return resolvFor(c.Network) }))
	}
	return errors.Join(errs...)
}

// edit rewrites a file by rename when change makes something else of it. A symlink is replaced by the file (resolv.conf
// often points to a resolver's own, which is not there yet). No fsync: it is all written again at the next boot.
func edit(file string, change func(old string) string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	text := change(string(old))
	st, lerr := os.Lstat(file)
	if err == nil && string(old) == text && lerr == nil && st.Mode().IsRegular() {
		return nil
	}
	if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	temp := file + ".banger"
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(temp, file); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// ownNameAddress is Debian's for a host's own name.
const ownNameAddress = "127.0.1.1"

// hostsFor gives hosts(5) text the host's name; what else stands there is the user's.
func hostsFor(old, hostname string) string {
	var b strings.Builder
	localhost := false
	for line := range strings.Lines(old) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == ownNameAddress {
			continue
		}
		if len(f) > 1 && f[0] == "127.0.0.1" {
			localhost = true
		}
		b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	head := ""
	if !localhost {
		head = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	}
	return head + b.String() + ownNameAddress + "\t" + hostname + "\n"
}

// machineIDFor keeps a machine-id(5) that is there, unless it is what we made for the previous identity.
func machineIDFor(old, previous, id string) string {
	switch now := strings.TrimSpace(old); {
	case now == "", now == "uninitialized", previous != "" && previous != id && now == deriveMachineID(previous):
		return deriveMachineID(id) + "\n"
	}
	return old
}

func deriveMachineID(id string) string {
	sum := sha256.Sum256([]byte("banger machine-id " + id))
	return hex.EncodeToString(sum[:16])
}

func resolvFor(n *guest.Network) string {
	var b strings.Builder
	if len(n.Search) > 0 {
		b.WriteString("search " + strings.Join(n.Search, " ") + "\n")
	}
	for _, ns := range n.Nameservers {
		b.WriteString("nameserver " + ns + "\n")
	}
	return b.String()
}
