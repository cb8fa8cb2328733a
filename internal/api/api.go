// Package api holds what CLI and daemon agree on: paths, wire types, the mapping of errors to HTTP. The two ends are
// api/server and api/client. It imports internal/vm and nothing else of ours, so that the CLI stays small and quick.
//
// Long requests (create, start, stop, delete, build, import, install) answer 200 with NDJSON: a Message a line, events first,
// the last with Done true and either VM/Image/Kernel/VMM or Error. What is wrong before anything is made answers as an
// ordinary HTTP error with an ErrorBody.
package api

import (
	"net/http"

	"banger/internal/vm"
)

// Paths. {ref} is a VM's name, its id, or a unique prefix of the id.
const (
	PathVersion = "/v1/version"           // GET → Version
	PathStatus  = "/v1/status"            // GET → Status
	PathStop    = "/v1/stop"              // POST: the daemon ends, VMs live on
	PathEvents  = "/v1/events"            // GET ?vm=REF → NDJSON of vm.Event, until the client hangs up
	PathVMs     = "/v1/vms"               // GET → []vm.VMRecord; POST CreateRequest → stream
	PathSummary = "/v1/summaries"         // GET → []VMSummary
	PathVM      = "/v1/vms/{ref}"         // GET → VMView; PATCH SetRequest → stream; DELETE [?if=stopped] → stream
	PathVMStart = "/v1/vms/{ref}/start"   // POST → stream
	PathVMStop  = "/v1/vms/{ref}/stop"    // POST StopRequest → stream
	PathRestart = "/v1/vms/{ref}/restart" // POST StopRequest → stream
	PathPause   = "/v1/vms/{ref}/pause"   // POST → stream
	PathResume  = "/v1/vms/{ref}/resume"  // POST → stream
	PathReset   = "/v1/vms/{ref}/reset"   // POST ResetRequest → stream
	PathRename  = "/v1/vms/{ref}/rename"  // POST RenameRequest → stream
	PathVMWait  = "/v1/vms/{ref}/wait"    // GET ?for=ready|stopped|gone → vm.VMRecord, when it is
	PathVMLogs  = "/v1/vms/{ref}/logs"    // GET ?follow=1&tail=N[&of=daemon&since=TIME] → text
	PathVMExec  = "/v1/vms/{ref}/exec"    // POST guest.ExecRequest, Upgrade: banger-exec → frames, once ready
	PathVMJobs  = "/v1/vms/{ref}/jobs"    // GET → guest.Jobs
	PathAttach  = "/v1/vms/{ref}/attach"  // POST guest.AttachRequest, Upgrade: banger-exec → frames
	PathSignal  = "/v1/vms/{ref}/signal"  // POST guest.SignalRequest
	PathVMSSH   = "/v1/vms/{ref}/ssh"     // POST, Upgrade: banger-raw → one SSH connection
	PathVMFiles = "/v1/vms/{ref}/files"   // GET, PUT, HEAD ?path= → the agent's /v1/files
	PathVMStats = "/v1/vms/{ref}/stats"   // GET → VMStats, of a VM in any state
	PathVMTop   = "/v1/vms/{ref}/top"     // GET → guest.Processes
	PathVMPorts = "/v1/vms/{ref}/ports"   // GET → VMPorts; POST PortsRequest → stream
	PathImages  = "/v1/images"            // GET [?unused=true] → []vm.Image
	PathImage   = "/v1/images/{ref}"      // GET → ImageView; DELETE [?digest=DIGEST]. {ref} is the image's name
	PathBuild   = "/v1/images/build"      // POST BuildRequest → stream
	PathKernels = "/v1/kernels"           // GET [?unused=true] → []vm.Kernel
	PathKernel  = "/v1/kernels/{ref}"     // GET → KernelView; DELETE [?digest=DIGEST]. {ref} is the kernel's name
	PathImport  = "/v1/kernels/import"    // POST ImportRequest → stream
	PathDoctor  = "/v1/doctor"            // GET → []Problem
	PathMetrics = "/metrics"              // GET → Prometheus' text format
	PathOpenAPI = "/v1/openapi.json"      // GET → OpenAPI 3.1
)

// What PathVMWait waits for.
const (
	UntilReady   = "ready"   // its agent answers, and is configured
	UntilStopped = "stopped" // nothing of a run is left; a VM that is gone has stopped
	UntilGone    = "gone"    // there is no such VM any more
)

// Untils are all of these.
func Untils() []string { return []string{UntilGone, UntilReady, UntilStopped} }

// VersionHeader is on every answer, so that a client notices a daemon of another version.
const VersionHeader = "Banger-Version"

// Version answers PathVersion.
type Version struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// Status answers PathStatus.
type Status struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Socket   string `json:"socket"`
	Database string `json:"database"`
	Root     string `json:"root"` // BANGER_ROOT, or the state directory without one
	Log      string `json:"log"`
	VMs      int    `json:"vms"`
	Running  int    `json:"running"`
	UptimeMs int64  `json:"uptime_ms"`
}

// CreateRequest makes a VM. Zero fields take the daemon's configured defaults.
type CreateRequest struct {
	Name      string `json:"name,omitempty"` // empty = a name is made up
	Image     string `json:"image,omitempty"`
	Kernel    string `json:"kernel,omitempty"`
	VCPU      int    `json:"vcpu,omitempty"`
	MemoryMiB int64  `json:"memory_mib,omitempty"`
	DiskSize  int64  `json:"disk_size,omitempty"` // bytes
	VMM       string `json:"vmm,omitempty"`
	Disk      string `json:"disk,omitempty"`
	Network   string `json:"network,omitempty"`

	Ports []vm.Port `json:"ports,omitempty"` // published on the host, see vm.ParsePort

	Labels map[string]string `json:"labels,omitempty"` // at most 64, see vm.ValidateLabels

	Restart    string `json:"restart,omitempty"`     // see vm.ParseRestart
	AutoRemove bool   `json:"auto_remove,omitempty"` // the VM lives as long as its one exec session
	Start      bool   `json:"start,omitempty"`
	// NoWait ends the stream when the record is committed instead of when the VM is ready (Start).
	NoWait bool `json:"no_wait,omitempty"`
}

// StopRequest ends a VM's run.
type StopRequest struct {
	Force   bool `json:"force,omitempty"`    // kill: no sync, no grace
	GraceMs int  `json:"grace_ms,omitempty"` // for the guest's processes to end; 0 = 10 s. Its disks have the time they need
}

// ResetRequest has a VM's system disk made anew.
type ResetRequest struct {
	Force bool `json:"force,omitempty"` // stop it before
}

// RenameRequest gives a VM another name.
type RenameRequest struct {
	Name string `json:"name"`
}

// SetRequest changes what a VM is. Zero fields leave it as it is.
type SetRequest struct {
	VCPU      int   `json:"vcpu,omitempty"`
	MemoryMiB int64 `json:"memory_mib,omitempty"`
	DiskSize  int64 `json:"disk_size,omitempty"` // bytes; a work disk can only grow

	Restart string `json:"restart,omitempty"` // see vm.ParseRestart

	Labels       map[string]string `json:"labels,omitempty"`        // added, or given another value
	RemoveLabels []string          `json:"remove_labels,omitempty"` // keys; one that it has not is no error
}

// VMListed is what `vm list --json` prints of a VM.
type VMListed struct {
	vm.VMRecord
	Pending []string `json:"pending,omitempty"` // as VMView has it
}

// VMView is what `vm show --json` prints: the record, and apart from it handles and what was just seen.
type VMView struct {
	vm.VMRecord
	Handles  vm.VMHandles `json:"handles"`
	Observed vm.Observed  `json:"observed"`
	Pending  []string     `json:"pending,omitempty"` // what of the spec its machine has only from its next start on; words as Message's
	VMDir    string       `json:"vm_dir"`
	SSH      *SSHAccess   `json:"ssh,omitempty"`
	Ports    []PortStatus `json:"ports,omitempty"`   // that it publishes
	VMMWhy   string       `json:"vmm_why,omitempty"` // why this VMM and acceleration (vmm.Probe), for people
	Speed    string       `json:"speed,omitempty"`   // how fast to expect it (vmm.Speed), for people
}

// SSHAccess is what an ssh client needs to reach a VM and to be sure of it.
type SSHAccess struct {
	User         string `json:"user"`
	IdentityFile string `json:"identity_file"`
	KnownHosts   string `json:"known_hosts"` // pins HostKeyAlias = DNS name
	HostKeyAlias string `json:"host_key_alias"`
}

// BuildRequest builds an image from Debian packages.
type BuildRequest struct {
	Recipe   string   `json:"recipe,omitempty"`   // empty = the one called Name
	Name     string   `json:"name,omitempty"`     // of the image; empty = the recipe's
	Packages []string `json:"packages,omitempty"` // added to the recipe's
	Mirror   string   `json:"mirror,omitempty"`   // empty = as the host is configured
	Script   string   `json:"script,omitempty"`   // run as root in a VM of the packages; what it leaves is the image
	Force    bool     `json:"force,omitempty"`    // build even when an image of that name and recipe exists
}

// ImportRequest imports a kernel. Source: the absolute path of a .deb, vmlinux or bzImage, "installed" or
// "installed:RELEASE", "apt:PACKAGE"; empty = the default.
type ImportRequest struct {
	Name   string `json:"name,omitempty"`
	Source string `json:"source,omitempty"`
}

// Message is one line of a stream.
type Message struct {
	Event  *vm.Event    `json:"event,omitempty"`
	Done   bool         `json:"done,omitempty"`
	VM     *vm.VMRecord `json:"vm,omitempty"`
	Image  *vm.Image    `json:"image,omitempty"`
	Kernel *vm.Kernel   `json:"kernel,omitempty"`
	VMM    *VMM         `json:"vmm,omitempty"`
	// Pending is what of the change has not reached the VM's guest: a guest that runs learns its hostname as soon as it
	// answers, the rest takes effect at the next start. Words: see the Pending constants.
	Pending []string   `json:"pending,omitempty"`
	Error   *ErrorBody `json:"error,omitempty"`
}

// Words of Message.Pending.
const (
	PendingHostname = "hostname"
	PendingVCPU     = "vcpu"
	PendingMemory   = "memory"
	PendingDiskSize = "disk-size"
)

// ErrorBody is the body of every answer that is not 2xx, and the error of a stream.
type ErrorBody struct {
	Code    vm.Code `json:"code"`
	Message string  `json:"message"`
	Hint    string  `json:"hint,omitempty"`
}

// Problem is one finding of doctor.
type Problem struct {
	Code     string `json:"code"`     // stable word, e.g. emulated
	Severity string `json:"severity"` // error, warning, info
	Text     string `json:"text"`
	Hint     string `json:"hint"`
}

var statusOf = map[vm.Code]int{
	vm.CodeInvalid:     http.StatusBadRequest,
	vm.CodeNotFound:    http.StatusNotFound,
	vm.CodeExists:      http.StatusConflict,
	vm.CodeNotRunning:  http.StatusConflict,
	vm.CodeConflict:    http.StatusConflict,
	vm.CodeNoSpace:     http.StatusInsufficientStorage,
	vm.CodeMissing:     http.StatusPreconditionFailed,
	vm.CodeUnavailable: http.StatusServiceUnavailable,
	vm.CodeCanceled:    499,
}

// StatusOf maps an error code to the HTTP status it travels under.
func StatusOf(c vm.Code) int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// BodyOf turns an error into its wire form.
func BodyOf(err error) *ErrorBody {
	return &ErrorBody{Code: vm.CodeOf(err), Message: err.Error(), Hint: vm.HintOf(err)}
}

// Err turns the wire form back into an error; nil for nil.
func (b *ErrorBody) Err() error {
	if b == nil {
		return nil
	}
	return &vm.Error{Code: b.Code, Message: b.Message, Hint: b.Hint}
}
