package api

import "time"

// Paths about VMMs. {ref} is a VMM's name.
const (
	PathVMMs       = "/v1/vmms"                          // GET → []VMM
	PathVMM        = "/v1/vmms/{ref}"                    // GET → VMMView
	PathVMMInstall = "/v1/vmms/{ref}/install"            // POST InstallRequest → stream
	PathVMMVersion = "/v1/vmms/{ref}/versions/{version}" // DELETE
)

// InstallRequest installs a VMM's programs.
type InstallRequest struct {
	Version string   `json:"version,omitempty"` // "1.12.1"; empty = what From holds, or the one this banger is tested with
	From    string   `json:"from,omitempty"`    // URL, or absolute path of an archive, a directory or a program; empty = the project's releases
	SHA256  []string `json:"sha256,omitempty"`  // hex, of the archive or of each program
}

// Where a VMM's program comes from.
const (
	OriginConfig    = "config" // named in config.toml
	OriginInstalled = "installed"
	OriginPath      = "path" // found in PATH
)

// What an installed program was checked against, best first.
const (
	CheckedPinned = "pinned" // the digests that this banger has of the version
	CheckedGiven  = "given"  // InstallRequest.SHA256
	CheckedSums   = "sums"   // SHA256SUMS, or a .sha256.txt, beside what was installed
)

// VMM is one VMM's program on this host.
type VMM struct {
	Name         string    `json:"name"`    // firecracker
	Version      string    `json:"version"` // empty = it does not tell
	Origin       string    `json:"origin"`  // config, installed, path
	InUse        bool      `json:"in_use"`  // the next VM is started with it, if it works
	Path         string    `json:"path"`
	Digest       string    `json:"digest"` // sha256:HEX of what lies there now
	Jailer       string    `json:"jailer,omitempty"`
	JailerDigest string    `json:"jailer_digest,omitempty"`
	Source       string    `json:"source,omitempty"`  // installed: where it was got
	Checked      string    `json:"checked,omitempty"` // installed: pinned, given, sums
	InstalledAt  time.Time `json:"installed_at,omitzero"`
	Error        string    `json:"error,omitempty"` // why it cannot be what it should be
}

// VMMView is what `vmm show --json` prints: the program that is in use, and whether VMs can be run with it. Without a
// program it has none of its own fields but the name.
type VMMView struct {
	VMM
	Usable    bool   `json:"usable"`
	Accel     string `json:"accel,omitempty"`
	Why       string `json:"why"` // a sentence for people, also where it is usable
	Hint      string `json:"hint,omitempty"`
	Supported string `json:"supported"` // the versions this banger works with, in words
	Tested    string `json:"tested"`    // the version it is tested with
}
