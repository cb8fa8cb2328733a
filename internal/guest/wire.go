// Package guest holds what host and guest agree on: the wire types of the agent's HTTP API, the frame format of its
// streams, the session over a virtio-serial port (Mux), and the host's client. internal/guest/agent is the other end.
//
// It must not know about VMMs, SQLite or the host's objects: it needs a way to dial, and speaks.
package guest

// Protocol is the version of everything in this file. The agent travels with the daemon (in the initramfs), but a VM
// started by an older daemon still runs the older agent after an upgrade: fields are only ever added. Version 2 added jobs:
// who asks an agent of version 1 for what only they can do notices by its FrameStarted.
const Protocol = 2

// Paths of the agent's API. Exec and SSH are upgraded streams (see Upgrade*), the rest plain requests.
const (
	PathHello     = "/v1/hello"     // GET  → Hello
	PathConfigure = "/v1/configure" // POST Configure → Hello; idempotent: at boot, after restore, after fork
	PathExec      = "/v1/exec"      // POST ExecRequest, Upgrade: banger-exec → frames (frame.go)
	PathJobs      = "/v1/jobs"      // GET → Jobs
	PathAttach    = "/v1/attach"    // POST AttachRequest, Upgrade: banger-exec → frames, as those of the job's own session
	PathSignal    = "/v1/signal"    // POST SignalRequest
	PathSSH       = "/v1/ssh"       // POST, Upgrade: banger-raw → raw bytes of one SSH connection
	PathFiles     = "/v1/files"     // GET ?path= → tar; PUT ?path=&... ← tar; HEAD ?path= → PathStat in header StatHeader
	PathForward   = "/v1/forward"   // POST ForwardRequest, Upgrade: banger-forward → frames of one connection (forward.go)
	PathListeners = "/v1/listeners" // GET  → Listeners
	PathStats     = "/v1/stats"     // GET  → Stats
	PathProcesses = "/v1/processes" // GET  → Processes
	PathSync      = "/v1/sync"      // POST: sync(2)
	PathPowerOff  = "/v1/poweroff"  // POST PowerOff: answered, then processes ended, disks synced, machine off
)

// Upgrade tokens of the streams.
const (
	UpgradeExec    = "banger-exec"
	UpgradeRaw     = "banger-raw"
	UpgradeForward = "banger-forward"
)

// StatHeader carries a base64 JSON PathStat in answers about files, as Docker's archive API does.
const StatHeader = "Banger-Path-Stat"

// Hello is the agent's self-description; only an answered hello makes a VM ready.
type Hello struct {
	Protocol   int    `json:"protocol"`
	Version    string `json:"version"`
	BootID     string `json:"boot_id"`    // the guest kernel's
	Configured string `json:"configured"` // Configure.ID last applied; empty before the first
	Hostname   string `json:"hostname"`
	Uptime     int64  `json:"uptime_ms"`        // guest uptime
	Init       string `json:"init"`             // "agent" or the path of the image's init that was given PID 1
	Ending     string `json:"ending,omitempty"` // after a PowerOff: one of Ending*; the machine is not to be cut off yet
}

// What an agent is at between a PowerOff and the end of the machine.
const (
	EndingProcesses = "processes" // it waits for processes, or for the image's init
	EndingDisks     = "disks"     // nothing runs any more: dirty pages are written, and file systems closed
)

// Configure gives a booted, restored or forked guest its identity. Applying it twice is harmless.
type Configure struct {
	ID             string   `json:"id"` // of the VM
	Hostname       string   `json:"hostname"`
	Network        *Network `json:"network,omitempty"`
	UnixTimeNs     int64    `json:"unix_time_ns,omitempty"` // sets the clock when it is off by more than a second
	SSHHostKeyPEM  string   `json:"ssh_host_key_pem,omitempty"`
	AuthorizedKeys []string `json:"authorized_keys,omitempty"` // authorized_keys lines
	Entropy        []byte   `json:"entropy,omitempty"`         // mixed into the kernel's pool
	Env            []string `json:"env,omitempty"`             // KEY=VALUE, the image's environment for every exec
}

// Network is the one interface of a guest, set statically (no DHCP round trips at boot).
type Network struct {
	MAC         string   `json:"mac,omitempty"` // picks the interface; empty = the first that is not lo
	Address     string   `json:"address"`       // CIDR
	Gateway     string   `json:"gateway"`       // IP
	Nameservers []string `json:"nameservers"`   // IPs
	Search      []string `json:"search,omitempty"`
	MTU         int      `json:"mtu,omitempty"` // 0 = leave
}

// ExecRequest starts one process in the guest.
type ExecRequest struct {
	Argv  []string `json:"argv"`            // Argv[0] is looked up in PATH of Env
	Env   []string `json:"env,omitempty"`   // added to the image's environment
	Dir   string   `json:"dir,omitempty"`   // empty = home of User
	User  string   `json:"user,omitempty"`  // name or uid, optionally :group; empty = root
	TTY   bool     `json:"tty,omitempty"`   // a pty: stdout and stderr are one stream
	Stdin bool     `json:"stdin,omitempty"` // false: stdin is /dev/null
	Rows  uint16   `json:"rows,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`

	// Since version 2. LingerMs is how long the command goes on when its last client was cut off: it went without a FrameBye.
	// Then it is hung up. 0 = at once, and nothing of it is kept; Linger = as long as it runs.
	LingerMs int64 `json:"linger_ms,omitempty"`
	// TimeoutMs is how long the command may run: then its process group gets SIGTERM, and SIGKILL if it has not ended five
	// seconds later; its Code is 124. 0 = for ever.
	TimeoutMs int64 `json:"timeout_ms,omitempty"`
}

// Linger as ExecRequest.LingerMs: clients come and go.
const Linger = -1

// ExecExit ends an exec stream (frame FrameExit).
type ExecExit struct {
	Code   int    `json:"code"`             // as a shell reports it: status, or 128+signal
	Signal string `json:"signal,omitempty"` // "SIGKILL" when one ended it
	// Reason is set when the process could not be started; Code is then 127 (not found) or 126 (not executable, bad
	// directory, unknown user), and Reason a sentence for people.
	Reason string `json:"reason,omitempty"`
	// TimedOut says that it was ended since its ExecRequest.TimeoutMs was over; Code is then CodeTimeout.
	TimedOut bool `json:"timed_out,omitempty"`
}

// CodeTimeout is the status of a command whose time was over, as timeout(1) gives it.
const CodeTimeout = 124

// PathStat describes one path in the guest.
type PathStat struct {
	Name       string `json:"name"` // base name
	Size       int64  `json:"size"`
	Mode       uint32 `json:"mode"` // io/fs.FileMode bits
	ModTime    int64  `json:"mtime"`
	LinkTarget string `json:"link_target,omitempty"`
}

// ForwardRequest asks for a connection to a port of the guest, whichever of its addresses the port is open on. For UDP it is
// one client's datagrams. A port where nobody listens is refused, with vm.CodeUnavailable; of UDP nobody can tell.
type ForwardRequest struct {
	Protocol string `json:"protocol"` // a vm.Port's
	Port     int    `json:"port"`
}

// Listeners are the ports of a guest on which somebody waits. Where there are more than an answer holds, the last are left out.
type Listeners struct {
	Total     int        `json:"total"`
	Listeners []Listener `json:"listeners"`
}

// Listener is a port of the guest on which a process waits for peers.
type Listener struct {
	Protocol string `json:"protocol"` // "tcp" or "udp"
	Address  string `json:"address"`  // an IP of the guest; 0.0.0.0 or :: are all of its addresses
	Port     int    `json:"port"`
	PID      int    `json:"pid,omitempty"` // 0: no process has it, but the kernel
	Process  string `json:"process,omitempty"`
}

// Stats is a guest's own view of its load.
type Stats struct {
	UptimeMs     int64   `json:"uptime_ms"`
	Load1        float64 `json:"load1"`
	MemTotal     int64   `json:"mem_total"` // bytes
	MemAvailable int64   `json:"mem_available"`
	CPUUserMs    int64   `json:"cpu_user_ms"`
	CPUSystemMs  int64   `json:"cpu_system_ms"`
	Processes    int     `json:"processes"`

	// Counted since boot.
	NetReceived int64 `json:"net_received"` // bytes, of all interfaces but the loopback
	NetSent     int64 `json:"net_sent"`
	DiskRead    int64 `json:"disk_read"` // bytes, of all virtio disks
	DiskWritten int64 `json:"disk_written"`
}

// Processes are those of a guest, by pid. Where there are more than an answer holds, the last are left out.
type Processes struct {
	UptimeMs  int64     `json:"uptime_ms"`
	Total     int       `json:"total"`
	Processes []Process `json:"processes"`
}

// Process is one process of a guest, all its threads included.
type Process struct {
	PID       int    `json:"pid"`
	PPID      int    `json:"ppid"`
	User      string `json:"user"`  // by the guest's /etc/passwd; a uid that is not there as a number
	State     string `json:"state"` // a letter, as in proc(5)
	Threads   int    `json:"threads"`
	CPUMs     int64  `json:"cpu_ms"`           // used since its start
	StartedMs int64  `json:"started_ms"`       // after the guest's boot
	Resident  int64  `json:"resident"`         // bytes
	Command   string `json:"command"`          // its arguments, or [name] where it has none; at most 256 bytes
	Kernel    bool   `json:"kernel,omitempty"` // a thread of the kernel's
}

// PowerOff asks for an orderly end.
type PowerOff struct {
	GraceMs int64 `json:"grace_ms,omitempty"` // between SIGTERM and SIGKILL; 0 = 2 s
}

// ErrorBody is the JSON body of every answer that is not 2xx.
type ErrorBody struct {
	Code    string `json:"code"` // a vm.Code
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}
