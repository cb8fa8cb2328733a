package guest

// Kernel command-line parameters read by banger-guest as init. A disk is named by "serial:NAME" (virtio-blk serial,
// QEMU) or "dev:vda" (order, Firecracker).
const (
	ArgRoot    = "banger.root"    // the root disk
	ArgWork    = "banger.work"    // the work disk, mounted at /root; absent = none
	ArgModules = "banger.modules" // read-only disk with the kernel's modules, mounted at /lib/modules/RELEASE
	ArgInit    = "banger.init"    // "agent" (default: stay PID 1) or the path of the image's init to hand PID 1 to
	ArgChannel = "banger.channel" // "virtio:NAME" (port name, /dev/virtio-ports/NAME or by sysfs) or "vsock:PORT"
	ArgProve   = "banger.prove"   // "1": print ProofLine on the console and end the machine at once (proof that KVM works)
)

// ProofLine is what a guest booted with ArgProve prints.
const ProofLine = "BANGER-GUEST-RUNS"

// Names shared by drivers and guest.
const (
	SerialRoot    = "banger-root"
	SerialWork    = "banger-work"
	SerialModules = "banger-modules"
	ChannelName   = "banger.agent"
	VSockPort     = 1024
)
