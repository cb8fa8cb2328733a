package config

import (
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// Firecracker configures that VMM, where its programs are got, and its jails.
type Firecracker struct {
	Binary     string `toml:"binary"`      // absolute path, or a name in PATH; empty: what is installed, else what PATH has
	Jailer     string `toml:"jailer"`      // the same of its jailer
	Jail       bool   `toml:"jail"`        // each VMM in a chroot of its own, as a user of its own; takes root
	FirstUID   int    `toml:"first_uid"`   // of these users
	UIDs       int    `toml:"uids"`        // how many there are
	ReleaseURL string `toml:"release_url"` // of an archive; {version} and {arch} are filled in
}

func defaultFirecracker() Firecracker {
	return Firecracker{Jail: true, FirstUID: 900000, UIDs: 10000,
		ReleaseURL: "https://github.com/firecracker-microvm/firecracker/releases/download/v{version}/firecracker-v{version}-{arch}.tgz"}
}

const (
	minUID = 1000               // below are the distribution's own
	maxUID = math.MaxUint32 - 2 // the last is chown's "leave it as it is", the one before has meant nobody
	nobody = 65534              // owns what has no owner; and 65535 is the last one's alias of 16 bits
)

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (f Firecracker) check() error {
	for _, program := range []struct{ key, value string }{{"binary", f.Binary}, {"jailer", f.Jailer}} {
		if strings.Contains(program.value, "/") && !filepath.IsAbs(program.value) {
			return fmt.Errorf("firecracker.%s = %q: it must be an absolute path, or the name of a program in PATH", program.key, program.value)
		}
	}
	if f.FirstUID < minUID || f.FirstUID > maxUID {
		return fmt.Errorf("firecracker.first_uid = %d: it must be from %d to %d", f.FirstUID, minUID, maxUID)
	}
	if most := maxUID - f.FirstUID + 1; f.UIDs < 1 || f.UIDs > most {
		return fmt.Errorf("firecracker.uids = %d: it must be from 1 to %d", f.UIDs, most)
	}
	if f.FirstUID <= nobody+1 && f.FirstUID+f.UIDs > nobody {
		return fmt.Errorf("firecracker.first_uid = %d, firecracker.uids = %d: user %d, nobody, would be among them", f.FirstUID, f.UIDs, nobody)
	}
	for _, p := range placeholder.FindAllString(f.ReleaseURL, -1) {
		if p != "{version}" && p != "{arch}" {
			return fmt.Errorf("firecracker.release_url has %s: only {version} and {arch} are filled in", p)
		}
	}
	u, err := url.Parse(f.Release("1.2.3"))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || !strings.Contains(f.ReleaseURL, "{version}") {
		return fmt.Errorf("firecracker.release_url = %q: it must be an http or https URL with {version} in it", f.ReleaseURL)
	}
	return nil
}

// Release is where the archive of one version is got.
func (f Firecracker) Release(version string) string {
	return strings.NewReplacer("{version}", version, "{arch}", "x86_64").Replace(f.ReleaseURL)
}
