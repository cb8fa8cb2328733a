package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// agentName is argv[0] of the agent where it is not PID 1. systemd spares processes whose argv[0] begins with '@' when
// it kills everything (its "root storage daemons").
const agentName = "@banger-guest"

// notifyFD is where that agent tells PID 1 (one byte) that the guest has been configured.
const notifyFD = 3

// configureWait is how long the image's init is held back for Configure. It must see the right host name and
// addresses, but a guest whose host never comes should still boot.
const configureWait = 2 * time.Minute

// Main is the whole of banger-guest. It returns when it served files, and they are served; as init or agent never.
func Main(args []string) {
	// A guest holds little and lives on emulated cycles: collect rarely, but never hoard.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(96 << 20)
	// Its goroutines mostly wait for each other. On a second processor each hand-over wakes another thread, which then
	// searches for more work: an emulated exec took some 5 ms longer.
	runtime.GOMAXPROCS(1)
	var err error
	switch {
	case os.Getpid() == 1:
		err = boot()
	case len(args) > 0 && args[0] == agentName:
		err = runAgent()
	case len(args) > 0 && args[0] == sftpName:
		if err = serveSFTP(); err == nil {
			return
		}
	default:
		fmt.Fprintln(os.Stderr, "banger-guest: this is the init of a banger guest; it does nothing elsewhere")
		os.Exit(2)
	}
	say("cannot go on: %v", err)
	if os.Getpid() != 1 {
		os.Exit(1)
	}
	endMachine()
}

// say prints a line on the console.
func say(format string, a ...any) { fmt.Fprintf(os.Stderr, "banger-guest: "+format+"\n", a...) }

// endMachine ends the VMM at once: every driver turns the guest's restart into its own exit. Not a power-off, which
// needs ACPI and halts for ever where there is none.
func endMachine() {
	_ = unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1) // let the console send its last words
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1) // PID 1 gone: the kernel panics, which ends the VMM as well
}

// boot is PID 1's way from the initramfs to a served guest. It returns only with an error.
func boot() error {
	if err := mountAll(earlyMounts); err != nil {
		return err
	}
	// A crash of ours must end the machine, not leave it hanging in a panic.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("-1"), 0)
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args, err := parseCmdline(string(cmdline))
	if err != nil {
		return err
	}
	if args.prove {
		_, _ = fmt.Fprintln(os.Stderr, guest.ProofLine)
		endMachine()
	}
	events, err := openUevents()
	if err != nil {
		return err
	}
	defer events.close()
	loaded := make(chan error, 1)
	go func() { loaded <- loadModules("/modules", moduleLists(args.channel)...) }() // the disk's come first, the network's load while it is mounted

	grown, err := mountRoot(events, args, loaded)
	if err != nil {
		return err
	}
	if args.init == "" {
		r, _ := newReaper(true)
		return serve(args, r, nil, goHome(events, args.work))
	}
	<-goHome(events, args.work)
	return handOver(args.init, grown)
}

// goHome mounts the work disk while the agent already answers. The channel is closed when it is there; where that fails the
// machine ends: work that goes to the wrong disk is lost work.
func goHome(events *uevents, disk string) <-chan struct{} {
	there := make(chan struct{})
	if disk == "" {
		close(there)
		return there
	}
	go func() {
		if err := attach(events, disk, mountWork); err != nil {
			say("cannot go on: %v", err)
			endMachine()
		}
		close(there)
	}()
	return there
}

// mountRoot assembles the root file system and makes it ours; grown as of growExt4.
func mountRoot(events *uevents, args bootArgs, loaded <-chan error) (grown <-chan struct{}, err error) {
	const sysroot = "/sysroot"
	node, err := waitDisk(events, args.root)
	if err != nil {
		return nil, errors.Join(err, moduleErrors(loaded))
	}
	if err := os.Mkdir(sysroot, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := unix.Mount(node, sysroot, "ext4", 0, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w", node, err)
	}
	grown = growExt4(node, sysroot)
	if err := <-loaded; err != nil { // the files are out of reach after the switch
		say("%v", err)
	}
	if err := switchRoot(sysroot); err != nil {
		return nil, err
	}
	if err := errors.Join(mountAll(systemMounts), linkDev()); err != nil {
		say("%v", err)
	}
	if args.modules != "" {
		if err := attach(events, args.modules, mountModules); err != nil {
			say("no kernel modules beyond those of the boot: %v", err)
		}
	}
	if args.init == "" { // else udev does it
		if err := makeDeviceNodes("/dev", modulesDir()); err != nil {
			say("%v", err)
		}
	}
	return grown, nil
}

func attach(events *uevents, disk string, mount func(node string) error) error {
	node, err := waitDisk(events, disk)
	if err != nil {
		return err
	}
	return mount(node)
}

func moduleErrors(loaded <-chan error) error {
	select {
	case err := <-loaded:
		return err
	default:
		return nil // still loading
	}
}

// handOver starts the agent beside us, waits until the host has configured the guest and the root file system has its
// size, and becomes the image's init.
func handOver(init string, grown <-chan struct{}) error {
	if err := runnable(init, init); err != nil {
		return fmt.Errorf("start the image's init: %w", err)
	}
	configured, notify, err := os.Pipe()
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, notify.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if dir, err := makeCgroup(agentCgroup); err == nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
		defer func() { _ = dir.Close() }()
	} else {
		say("%v", err)
	}
	if _, err := syscall.ForkExec("/proc/self/exe", []string{agentName}, attr); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	_ = notify.Close()
	if err := configured.SetReadDeadline(time.Now().Add(configureWait)); err != nil {
		return err
	}
	if _, err := configured.Read(make([]byte, 1)); err != nil {
		say("the guest is not configured yet, %s starts all the same: %v", init, err)
	}
	_ = configured.Close()
	<-grown
	if err := restartAtEnd(init, "/run/systemd/system"); err != nil {
		say("a power-off from within may leave the machine halted: %v", err)
	}
	return fmt.Errorf("start the image's init %s: %w", init, syscall.Exec(init, []string{init}, []string{"TERM=linux", "PATH=" + defaultPath}))
}

// runAgent is the agent beside the image's init. It returns only with an error.
func runAgent() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args, err := parseCmdline(string(cmdline))
	if err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		say("protect the agent from the OOM killer: %v", err)
	}
	r, _ := newReaper(false)
	return serve(args, r, os.NewFile(notifyFD, "notify"), nil)
}
