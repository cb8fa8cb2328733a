package agent

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vm"
)

// clockSlack is how far off the guest's clock may be before it is set: less is what the message itself takes.
const clockSlack = time.Second

func (s *Server) handleConfigure(w http.ResponseWriter, r *http.Request) {
	var c guest.Configure
	if !readJSON(w, r, &c) {
		return
	}
	if c.ID == "" || vm.ValidateName(c.Hostname) != nil {
		writeError(w, http.StatusBadRequest, vm.Errorf(vm.CodeInvalid, "configure guest %q as %q: want an id and a DNS label", c.ID, c.Hostname))
		return
	}
	if c.Network != nil {
		if _, err := parseNetwork(c.Network); err != nil {
			writeError(w, http.StatusBadRequest, vm.Errorf(vm.CodeInvalid, "configure guest %s: %w", c.ID, err))
			return
		}
	}
	if err := s.configure(&c); err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	writeJSON(w, s.hello())
}

// configure applies c: all it can, the errors joined. Only a wholly applied one counts as applied.
func (s *Server) configure(c *guest.Configure) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	previous := ""
	if old := s.configured(); old != nil {
		previous = old.ID
	}
	errs := []error{setClock(c.UnixTimeNs), addEntropy(c.Entropy), setIdentity(c, previous)}
	if c.Network != nil {
		errs = append(errs, configureNetwork(c.Network))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure the guest: %w", err)
	}
	s.waitHome() // a configured guest can be used
	s.conf.Store(c)
	if s.notify != nil {
		_, _ = s.notify.Write([]byte{1})
		_ = s.notify.Close()
		s.notify = nil
	}
	return nil
}

func setClock(ns int64) error {
	if ns == 0 {
		return nil
	}
	if off := time.Since(time.Unix(0, ns)).Abs(); off <= clockSlack {
		return nil
	}
	ts := unix.NsecToTimespec(ns)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// addEntropy mixes b into the kernel's pool and makes it take effect at once: clones of one snapshot must part here.
func addEntropy(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	bits := int32(8 * len(b))
	// Both best effort: an old kernel credits or reseeds by itself, later.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDTOENTCNT, uintptr(unsafe.Pointer(&bits)))
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlReseed, 0)
	return nil
}

// ioctlReseed is RNDRESEEDCRNG of linux/random.h: _IO('R', 7).
const ioctlReseed = 0x5207
