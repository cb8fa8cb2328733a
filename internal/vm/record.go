package vm

import "time"

// Want is the durable intent of the user.
type Want string

// The three intents. A VM that is wanted gone keeps its row until everything of it is gone.
const (
	WantRunning Want = "running"
	WantStopped Want = "stopped"
	WantGone    Want = "gone"
)

// State is the last committed state of a VM, shown to users. What is true right now is Observed.
type State string

// The states users see, lower case (docs/FILES.md and the CLI's --json rely on them).
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StateStopping State = "stopping"
	StateRemoving State = "removing"
	StateError    State = "error"

	// StatePaused is what a running VM is shown as whose VMM says that its machine is halted. It is seen, never committed.
	StatePaused State = "paused"
)

// States are all of them, by name.
func States() []State {
	return []State{StateError, StatePaused, StateRemoving, StateRunning, StateStarting, StateStopped, StateStopping}
}

// Spec is what the user asked for, with every default filled in. It is immutable but by an explicit "set".
type Spec struct {
	VCPU       int    `json:"vcpu"`
	MemoryMiB  int64  `json:"memory_mib"`
	DiskSize   int64  `json:"disk_size"` // bytes of the work disk at /root
	VMM        string `json:"vmm"`       // auto, qemu, firecracker: as asked; VMRecord.VMM is what was chosen
	Disk       string `json:"disk"`      // auto, reflink, qcow2, dmsnap, copy: as asked; VMRecord.Disk is what was chosen
	Network    string `json:"network"`   // auto, user, bridge, none: as asked; VMRecord.Network is what was chosen
	AutoRemove bool   `json:"auto_remove,omitempty"`
	Restart    string `json:"restart,omitempty"` // see ParseRestart
	ImageName  string `json:"image_name"`
	KernelName string `json:"kernel_name"`

	Ports []Port `json:"ports,omitempty"` // published, with the numbers that the system chose

	Labels map[string]string `json:"labels,omitempty"` // the user's own words; they mean nothing to banger

	// Init and Env are the image's, as they were at creation: a name may move to another image later.
	Init string   `json:"init,omitempty"` // the image's init that is given PID 1; empty: banger-guest stays PID 1
	Env  []string `json:"env,omitempty"`  // KEY=VALUE for every exec
}

// VMRecord is everything durable about a VM: identity, intent, spec and VMRuntime. One row of table vms.
// No kernel fact (pid, tap, loop, device-mapper name) may ever be added here: those are VMHandles.
type VMRecord struct {
	ID           ID        `json:"id"`
	Name         string    `json:"name"`
	State        State     `json:"state"` // same as Runtime.State
	Want         Want      `json:"want"`
	Generation   int64     `json:"generation"` // grows by one with each change of intent
	Image        string    `json:"image"`
	ImageDigest  string    `json:"image_digest"` // sha256:<hex>
	Kernel       string    `json:"kernel"`
	KernelDigest string    `json:"kernel_digest"`
	VMM          string    `json:"vmm"`     // the driver chosen at creation, kept across restarts
	Disk         string    `json:"disk"`    // the root-disk driver chosen at creation
	Network      string    `json:"network"` // the network driver chosen at creation
	CreatedAt    time.Time `json:"created_at"`
	StartedAt    time.Time `json:"started_at,omitzero"` // when it last became ready
	Spec         Spec      `json:"spec"`
	Runtime      VMRuntime `json:"runtime"`
}

// VMRuntime is the durable half of a VM's run-time state: intent's last outcome, and paths and addresses that are
// derived from the identity by rule. It is trusted after a crash and after a reboot.
type VMRuntime struct {
	State         State  `json:"state"`
	GuestIP       string `json:"guest_ip,omitempty"`
	APISockPath   string `json:"api_sock_path"`
	VSockPath     string `json:"vsock_path"` // the host's socket to the guest agent (vsock or virtio-serial)
	VSockCID      uint32 `json:"vsock_cid,omitempty"`
	UID           int    `json:"uid,omitempty"` // user and group the VMM runs as, leased; 0 = the daemon's
	LogPath       string `json:"log_path"`      // the guest's console
	MetricsPath   string `json:"metrics_path,omitempty"`
	DNSName       string `json:"dns_name"`
	VMDir         string `json:"vm_dir"`
	SystemOverlay string `json:"system_overlay"`
	WorkDiskPath  string `json:"work_disk_path"`
	LastError     string `json:"last_error,omitempty"`

	// Attempts counts the failed rounds of a removal (or clean-up) since LastErrorAt, of which LastError is the last;
	// RetryAt is when the next one is due.
	Attempts    int       `json:"attempts,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	RetryAt     time.Time `json:"retry_at,omitzero"`
	// Restarts counts the restarts by policy in a row, until the VM has run well; RestartAt is when the one is due, or was,
	// that State starting stands for.
	Restarts  int       `json:"restarts,omitempty"`
	RestartAt time.Time `json:"restart_at,omitzero"`
	// ResetDue says that the system disk is to be made anew: nothing else is done with a VM that does not run before that is so.
	ResetDue bool `json:"reset_due,omitempty"`
}

// VMHandles are the transient kernel objects and the process that serve a VM now. They live in a memory cache and
// in handles.json, are only ever a hint after a restart, and are void when the boot id differs.
type VMHandles struct {
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"start_time,omitempty"` // field 22 of /proc/PID/stat, clock ticks since boot
	BootID    string `json:"boot_id,omitempty"`    // /proc/sys/kernel/random/boot_id when these were true
	Cgroup    string `json:"cgroup,omitempty"`     // cgroup v2 directory of the VMM, where there is one
	TapDevice string `json:"tap_device,omitempty"`
	BaseLoop  string `json:"base_loop,omitempty"`
	CowLoop   string `json:"cow_loop,omitempty"`
	DMName    string `json:"dm_name,omitempty"`
	DMDev     string `json:"dm_dev,omitempty"`

	// What the machine was launched with, which its spec may not have any more; zero where that is not known.
	LaunchedVCPU      int   `json:"launched_vcpu,omitempty"`
	LaunchedMemoryMiB int64 `json:"launched_memory_mib,omitempty"`
	LaunchedDiskSize  int64 `json:"launched_disk_size,omitempty"`
}

// IsZero says that no kernel or process resource is held.
func (h VMHandles) IsZero() bool {
	h.BootID, h.LaunchedVCPU, h.LaunchedMemoryMiB, h.LaunchedDiskSize = "", 0, 0, 0 // say when and with what, hold nothing
	return h == VMHandles{}
}

// Observed is what was just seen of a VM. It is computed when asked and stored nowhere.
type Observed struct {
	Alive        bool      `json:"alive"`                 // wanted running, and a process proven to be its VMM
	Ready        bool      `json:"ready"`                 // the guest agent answered and is configured
	Paused       bool      `json:"paused,omitempty"`      // its VMM has halted the machine: it was told to
	Silent       time.Time `json:"silent_since,omitzero"` // its guest was asked then, and nothing has come from it since
	Accel        string    `json:"accel,omitempty"`
	AgentVersion string    `json:"agent_version,omitempty"`
	At           time.Time `json:"at"`
}
