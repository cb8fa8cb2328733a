// Package agent is banger-guest: init of the initramfs, and the server behind the guest's channel.
//
// It must not be imported by anything on the host but tests, must not write into the image anything but the identity
// Configure gives it, and must not need anything the image could lack (no shell, no libc, no helper programs).
package agent

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/version"
)

// Server serves the agent's API (internal/guest/wire.go). Make it with newServer.
type Server struct {
	init      string // path of the image's init, or "" when we are PID 1
	reaper    *reaper
	cgroups   *cgroups // nil = none
	protected bool     // from the OOM killer, which children must not inherit
	null      int      // /dev/null
	system    system
	jobs      *jobs
	uploads   uploads
	passwd    remembered
	home      <-chan struct{} // closed when the work disk is mounted; nil = nothing to wait for

	hangupGrace, stuckInput time.Duration // the defaults, but in tests

	conf        atomic.Pointer[guest.Configure] // last applied; nil before the first
	configuring sync.Mutex
	notify      *os.File     // told of the first Configure; nil = nobody
	ending      sync.Once    // the power-off
	stage       atomic.Value // of it, a string: guest.Ending*; nothing before it
}

// newServer makes a server whose children r waits for.
func newServer(r *reaper, sys system) (*Server, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	return &Server{
		reaper: r, null: null, system: sys, jobs: newJobs(), passwd: remembered{file: "/etc/passwd"},
		hangupGrace: defaultHangupGrace, stuckInput: defaultStuckInput,
	}, nil
}

// configured returns the configuration last applied, nil before the first. It is replaced, never changed: keep the
// pointer to notice a new one (SSH keys).
func (s *Server) configured() *guest.Configure { return s.conf.Load() }

// Serve answers requests on l until it is closed.
func (s *Server) Serve(l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+guest.PathHello, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.hello()) })
	mux.HandleFunc("POST "+guest.PathConfigure, s.handleConfigure)
	mux.HandleFunc("POST "+guest.PathExec, s.handleExec)
	mux.HandleFunc("GET "+guest.PathJobs, s.handleJobs)
	mux.HandleFunc("POST "+guest.PathAttach, s.handleAttach)
	mux.HandleFunc("POST "+guest.PathSignal, s.handleSignal)
	mux.HandleFunc("POST "+guest.PathSSH, s.handleSSH)
	mux.HandleFunc("POST "+guest.PathForward, s.handleForward)
	mux.HandleFunc("GET "+guest.PathListeners, s.handleListeners)
	mux.HandleFunc(guest.PathFiles, s.handleFiles)
	mux.HandleFunc("GET "+guest.PathStats, s.handleStats)
	mux.HandleFunc("GET "+guest.PathProcesses, s.handleProcesses)
	mux.HandleFunc("POST "+guest.PathSync, func(http.ResponseWriter, *http.Request) { unix.Sync() })
	mux.HandleFunc("POST "+guest.PathPowerOff, s.handlePowerOff)
	srv := &http.Server{Handler: s.afterHome(mux), ErrorLog: log.New(io.Discard, "", 0)}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the agent's API on %v: %w", l.Addr(), err)
	}
	return nil
}

// afterHome holds back all that could see or use the guest's home before it is there. A hello and a configuration, which
// waits by itself, go on meanwhile.
func (s *Server) afterHome(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != guest.PathHello && r.URL.Path != guest.PathConfigure {
			s.waitHome()
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) waitHome() {
	if s.home != nil {
		<-s.home
	}
}

func (s *Server) hello() guest.Hello {
	h := guest.Hello{Protocol: guest.Protocol, Version: guest.Plain(version.String()), Init: "agent"}
	if s.init != "" {
		h.Init = s.init
	}
	if conf := s.configured(); conf != nil {
		h.Configured = conf.ID
	}
	h.Ending, _ = s.stage.Load().(string)
	h.Hostname, _ = os.Hostname()
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		h.BootID = strings.TrimSpace(string(b))
	}
	h.Uptime = uptime().Milliseconds()
	return h
}
