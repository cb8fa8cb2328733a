package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"banger/internal/host/file"
)

// verdict is what is known of KVM.
type verdict string

const (
	kvmUnknown   verdict = ""          // it looks usable, and no boot was tried
	kvmUnusable  verdict = "unusable"  // no boot is worth trying: looked at again each time, since it costs nothing
	kvmProven    verdict = "proven"    // a guest booted
	kvmDisproven verdict = "disproven" // a guest did not
)

// findings is what was found out about QEMU on this host. Kept in probe.json, it holds for one boot and one QEMU.
type findings struct {
	BootID  string  `json:"boot_id"`
	Binary  string  `json:"binary"`
	Size    int64   `json:"size"`     // of the binary, which with ModTime tells an upgrade without running it
	ModTime int64   `json:"mod_time"` // ns since 1970
	Version string  `json:"version"`
	Sandbox bool    `json:"sandbox"` // QEMU takes sandboxOptions
	TSCKHz  uint64  `json:"tsc_khz"` // rate of the host's time stamp counter; 0 = could not be measured
	KVM     verdict `json:"kvm"`
	KVMCPU  string  `json:"kvm_cpu"` // the one of kvmCPUs that booted; empty = none, or the first, in a file of an older daemon
	KVMWhy  string  `json:"kvm_why"` // the end of a sentence, for people

	kvmHint string
	unsure  bool // see vmm.Unsure
}

func (f findings) kvm() bool { return f.KVM == kvmProven }

// machine is what follows for the machines that are launched.
func (f findings) machine() machine {
	return machine{kvm: f.kvm(), cpu: cmp.Or(f.KVMCPU, kvmCPUs[0]), sandbox: f.Sandbox, threads: sound(f.Version), places: sound(f.Version), tscKHz: f.TSCKHz, agentFD: agentFD}
}

// loadFindings reads what an earlier daemon of the same boot found out about the same QEMU. Everything else, a corrupt
// file included, is not known: then key comes back.
func loadFindings(path string, key findings) (f findings, known bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return key, false
	}
	if json.Unmarshal(b, &f) != nil {
		return key, false
	}
	if f.BootID == "" || f.BootID != key.BootID || f.Binary != key.Binary || f.Size != key.Size || f.ModTime != key.ModTime {
		return key, false
	}
	return f, true
}

func saveFindings(ctx context.Context, path string, f findings) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.Write(ctx, "findings", path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
