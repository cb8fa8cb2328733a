package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// GuestConfigure is guest.Configure, named here so that rules read well.
type GuestConfigure = guest.Configure

// ExecExit is guest.ExecExit, named here so that rules read well.
type ExecExit = guest.ExecExit

// Exec is one process a test plays.
type Exec struct {
	VM             vmm.Config
	Request        guest.ExecRequest
	Stdin          io.Reader // ends at FrameStdinClose
	Stdout, Stderr io.Writer
	Signals        <-chan string // names as in "SIGINT"
}

// agent is the guest agent of one process: HTTP on a listener in memory.
type agent struct {
	host    *Host
	process *process
	ready   <-chan struct{}
	booted  time.Time
	server  *http.Server
	conns   chan net.Conn
	closing chan struct{}
	once    sync.Once

	mu         sync.Mutex
	configured guest.Configure
}

// newAgent needs the host's lock.
func newAgent(h *Host, p *process) *agent {
	a := &agent{host: h, process: p, booted: time.Now(), conns: make(chan net.Conn), closing: make(chan struct{})}
	if h.rules.Ready != nil {
		a.ready = h.rules.Ready(*p.config)
	} else {
		ready := make(chan struct{})
		close(ready)
		a.ready = ready
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+guest.PathHello, func(w http.ResponseWriter, _ *http.Request) {
		if rule := a.host.currentRules().Hello; rule != nil {
			if err := rule(*a.process.config); err != nil {
				refuse(w, http.StatusInternalServerError, err)
				return
			}
		}
		answer(w, a.hello())
	})
	mux.HandleFunc("POST "+guest.PathConfigure, a.configure)
	mux.HandleFunc("POST "+guest.PathSync, a.sync)
	mux.HandleFunc("GET "+guest.PathProcesses, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, guest.Processes{Total: 1, Processes: []guest.Process{{PID: 1, User: "root", State: "S", Threads: 1, Command: "/sbin/init\x1b[2J"}}})
	})
	mux.HandleFunc("GET "+guest.PathStats, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, guest.Stats{UptimeMs: time.Since(a.booted).Milliseconds(), MemTotal: 512 << 20, MemAvailable: 400 << 20, Processes: 2})
	})
	mux.HandleFunc("GET "+guest.PathListeners, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, guest.Listeners{Total: 1, Listeners: []guest.Listener{{Protocol: "tcp", Address: "0.0.0.0", Port: 80, PID: 7, Process: "nginx"}}})
	})
	mux.HandleFunc("POST "+guest.PathForward, a.forward)
	mux.HandleFunc("POST "+guest.PathPowerOff, a.powerOff)
	mux.HandleFunc("PUT "+guest.PathFiles, a.put)
	mux.HandleFunc("POST "+guest.PathExec, a.exec)
	a.server = &http.Server{Handler: a.whenReady(mux), ReadHeaderTimeout: time.Minute}
	go func() { _ = a.server.Serve(a) }()
	return a
}

// whenReady holds requests back while the guest boots, as an unopened virtio port does, and while its VMM is stopped or
// the machine paused.
func (a *agent) whenReady(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.ready:
			if dead := a.host.currentRules().Dead; dead != nil && dead(*a.process.config) {
				select {
				case <-a.closing:
				case <-r.Context().Done():
				}
				return
			}
			if a.host.awaitGuest(r.Context(), a.process) == nil {
				next.ServeHTTP(w, r)
			}
		case <-a.closing:
		case <-r.Context().Done():
		}
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(guest.ErrorBody{Code: "internal", Message: err.Error()})
}

func (a *agent) sync(w http.ResponseWriter, _ *http.Request) {
	if rule := a.host.currentRules().Sync; rule != nil {
		rule(*a.process.config)
	}
	answer(w, struct{}{})
}

// put takes files, and keeps none.
func (a *agent) put(_ http.ResponseWriter, r *http.Request) {
	if rule := a.host.currentRules().Put; rule != nil {
		rule(*a.process.config)
	}
	_, _ = io.Copy(io.Discard, r.Body)
}

func (a *agent) hello() guest.Hello {
	ending := ""
	if rule := a.host.currentRules().Ending; rule != nil {
		ending = rule(*a.process.config)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return guest.Hello{
		Protocol: guest.Protocol, Version: "fake", BootID: fmt.Sprintf("guest-boot-%d", a.process.id.StartTime),
		Configured: a.configured.ID, Hostname: a.configured.Hostname, Uptime: time.Since(a.booted).Milliseconds(), Init: "agent",
		Ending: ending,
	}
}

func (a *agent) configure(w http.ResponseWriter, r *http.Request) {
	var c guest.Configure
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if rule := a.host.currentRules().Configure; rule != nil {
		if err := rule(*a.process.config, c); err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
	}
	a.mu.Lock()
	a.configured = c
	a.mu.Unlock()
	answer(w, a.hello())
}

func (a *agent) powerOff(w http.ResponseWriter, r *http.Request) {
	answer(w, struct{}{})
	_ = http.NewResponseController(w).Flush()
	if rule := a.host.currentRules().PowerOff; rule != nil && !rule(*a.process.config) {
		return
	}
	a.host.farewell(a.process)
	go a.host.end(a.process, "exit status 0") // after the answer: ending closes this connection
}

// forward connects to a server that says again what it hears, whichever port is asked for.
func (a *agent) forward(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", guest.UpgradeForward)
	if err == nil {
		_, _ = io.Copy(conn, buf) // frames are alike in both directions
	}
}

func (a *agent) exec(w http.ResponseWriter, r *http.Request) {
	var req guest.ExecRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(context.Background()) // r's is the hijacked request's: it does not end with the stream
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		select {
		case <-a.closing: // the machine ends: the stream breaks
			cancel()
		case <-ctx.Done():
		}
	}()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", guest.UpgradeExec); err != nil {
		return
	}
	out := guest.NewFrameWriter(conn)
	stdin, feed := io.Pipe()
	signals := make(chan string, 16)
	go func() {
		defer cancel() // the client has gone
		feedInput(guest.NewFrameReader(buf), feed, signals)
	}()
	run := a.host.currentRules().Exec
	if run == nil {
		run = func(_ context.Context, e Exec) guest.ExecExit {
			_, _ = fmt.Fprintln(e.Stdout, strings.Join(e.Request.Argv, " "))
			return guest.ExecExit{}
		}
	}
	_ = out.Write(guest.FrameStarted, nil)
	exit := run(ctx, Exec{
		VM: *a.process.config, Request: req, Stdin: stdin, Signals: signals,
		Stdout: out.StreamWriter(guest.FrameStdout), Stderr: out.StreamWriter(guest.FrameStderr),
	})
	_ = stdin.Close()
	body, err := json.Marshal(exit)
	if err == nil {
		_ = out.Write(guest.FrameExit, body)
	}
}

// feedInput takes frames until the client has gone.
func feedInput(in *guest.FrameReader, feed *io.PipeWriter, signals chan<- string) {
	for {
		t, p, err := in.Next()
		if err != nil {
			_ = feed.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		switch t {
		case guest.FrameStdin:
			_, _ = feed.Write(p) // an error: nobody reads any more
		case guest.FrameStdinClose:
			_ = feed.Close()
		case guest.FrameSignal:
			select {
			case signals <- string(p):
			default:
			}
		}
	}
}

// dial makes a connection to the agent: a socket pair, which buffers and half-closes as a real one does.
func (a *agent) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("connect to guest agent: %w", err)
	}
	select {
	case a.conns <- theirs:
		return ours, nil
	case <-a.closing:
		err = errors.New("connection refused")
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = ours.Close(), theirs.Close()
	return nil, fmt.Errorf("connect to guest agent: %w", err)
}

func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, ferr := net.FileConn(f) // duplicates
		err = errors.Join(err, ferr, f.Close())
		conns[i] = c
	}
	return conns[0], conns[1], err
}

func (a *agent) close() {
	a.once.Do(func() {
		close(a.closing)
		_ = a.server.Close()
	})
}

// Accept implements net.Listener for the agent's own server.
func (a *agent) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.closing:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (a *agent) Close() error { return nil }

// Addr implements net.Listener.
func (a *agent) Addr() net.Addr { return &net.UnixAddr{Name: "guest", Net: "unix"} }
