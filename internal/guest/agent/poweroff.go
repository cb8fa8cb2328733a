package agent

import (
	"errors"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

const (
	defaultGrace = 2 * time.Second
	// killWait is how long processes get to vanish after SIGKILL before their disks are taken away all the same.
	killWait = time.Second
	// systemdReboot is SIGRTMIN+5: systemd goes to reboot.target, whose end is a restart, which ends the VMM. Its
	// poweroff.target (SIGRTMIN+4) halts for ever on a machine without ACPI.
	systemdReboot = syscall.Signal(34 + 5)
	// ioctlFreeze is FIFREEZE of linux/fs.h: _IOWR('X', 119, int).
	ioctlFreeze = 0xC0045877
)

// system is what a power-off does to the machine; tests have another.
type system interface {
	signalAll(syscall.Signal)
	askInit() bool // asks PID 1 to end the machine; false when it is none to ask
	settleDisks()
	end()
}

func (s *Server) handlePowerOff(w http.ResponseWriter, r *http.Request) {
	var req guest.PowerOff
	if r.ContentLength != 0 && !readJSON(w, r, &req) {
		return
	}
	grace := time.Duration(req.GraceMs) * time.Millisecond
	if grace <= 0 {
		grace = defaultGrace
	}
	s.stage.CompareAndSwap(nil, guest.EndingProcesses) // before the answer: who has it may ask at once
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusNoContent)
	if err := http.NewResponseController(w).Flush(); err != nil {
		say("answer the power-off: %v", err)
	}
	go s.powerOff(grace)
}

// powerOffOnSignal makes the signals by which init programs are asked to shut down do so (PID 1 only).
func (s *Server) powerOffOnSignal() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // Ctrl-Alt-Del is SIGINT then, not a restart without a sync
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR)
	<-asked
	s.powerOff(defaultGrace)
}

// powerOff ends every process, brings the disks to rest, and ends the machine. grace bounds the processes, nothing bounds
// the disks: a hello tells how far it is. Only the first call does anything.
func (s *Server) powerOff(grace time.Duration) {
	s.ending.Do(func() {
		s.stage.CompareAndSwap(nil, guest.EndingProcesses)
		s.uploads.end(killWait)
		if s.system.askInit() {
			<-time.After(grace) // it ends the machine, and us with it
		} else {
			s.system.signalAll(unix.SIGTERM)
			s.system.signalAll(unix.SIGHUP) // interactive shells ignore SIGTERM
			s.system.signalAll(unix.SIGCONT)
			s.awaitChildless(grace)
		}
		s.system.signalAll(unix.SIGKILL)
		s.awaitChildless(killWait)
		s.stage.Store(guest.EndingDisks)
		s.system.settleDisks()
		s.system.end()
	})
}

// awaitChildless waits until nothing below us runs, at most for d. Beside an init our own children are all we can know.
func (s *Server) awaitChildless(d time.Duration) {
	select {
	case <-s.reaper.childless():
	case <-time.After(d):
	}
}

// machine is the real system.
type machine struct{ init string }

// signalAll reaches everything but this process and PID 1.
func (machine) signalAll(sig syscall.Signal) { _ = unix.Kill(-1, sig) }

func (m machine) askInit() bool {
	if m.init == "" {
		return false
	}
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil || strings.TrimSpace(string(comm)) != "systemd" {
		return false
	}
	return unix.Kill(1, systemdReboot) == nil
}

// restartAtEnd makes a power-off or halt that is asked of systemd a restart, which ends the VMM everywhere. By itself it
// ends in a halt where the machine has no power-off, as Firecracker's: the VMM would go on with a dead guest in it. units
// is a directory that goes with the boot. It is made for systemd only: that it is there says that systemd runs.
func restartAtEnd(init, units string) error {
	if program, err := filepath.EvalSymlinks(init); err != nil || filepath.Base(program) != "systemd" {
		return err
	}
	errs := []error{os.MkdirAll(units, 0o755)}
	for _, target := range []string{"poweroff.target", "halt.target"} {
		errs = append(errs, os.Symlink("/lib/systemd/system/reboot.target", filepath.Join(units, target)))
	}
	return errors.Join(errs...)
}

// settleDisks leaves every disk's file system clean: read-only where nothing has a file open for writing, else frozen.
func (machine) settleDisks() {
	unix.Sync()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		say("list mounts: %v", err)
	}
	targets := diskMounts(string(mounts))
	for _, target := range slices.Backward(targets) {
		if err := settle(target); err != nil {
			say("%s may need its journal at the next boot: %v", target, err)
		}
	}
	unix.Sync()
}

func settle(target string) error {
	err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	if err == nil {
		return nil
	}
	fd, openErr := unix.Open(target, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer func() { _ = unix.Close(fd) }()
	if freezeErr := unix.IoctlSetInt(fd, ioctlFreeze, 0); freezeErr != nil {
		return errors.Join(err, freezeErr)
	}
	return nil
}

func (machine) end() { endMachine() }

// diskMounts lists the mount points, in the order of mounting, of file systems on block devices. Fields are as in fstab(5),
// but one space lies between them: other white space, beyond ASCII, may be part of one.
func diskMounts(mounts string) []string {
	var targets []string
	for line := range strings.Lines(mounts) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) < 2 || f[1] == "" || !strings.HasPrefix(f[0], "/dev/") {
			continue
		}
		targets = append(targets, unescape(f[1]))
	}
	return targets
}

// unescape undoes the kernel's octal escapes of white space and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
