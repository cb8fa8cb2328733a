package engine

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/guest"
	"banger/internal/plan"
	"banger/internal/vm"
	"banger/internal/vmm"
)

// agent is the session to one guest's agent. Over a stream-only channel it keeps one multiplexed session and makes it
// anew when it broke; over vsock each dial is a connection.
type agent struct {
	driver  vmm.Driver
	ref     vmm.Ref
	client  *guest.Client
	version string // of the agent, from its first hello; set before the agent is published

	ctx  context.Context // ends with close: a guest that never answers must not hold anybody for ever
	stop context.CancelFunc
	one  chan struct{} // a token: whoever has it may begin a session

	deafAfter time.Duration // as the constant says; less in tests

	heard   atomic.Int64 // how often something came from the guest, over whichever connection
	inquiry inquiry

	mu  sync.Mutex
	mux *guest.Mux // the session, if there is one
}

// heardConn is a connection that counts what comes over it.
type heardConn struct {
	net.Conn
	heard *atomic.Int64
}

func (c heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Add(1)
	}
	return n, err
}

// CloseWrite is that of the connection. Where it has none that must be known: who passes a stream on then ends it as a whole
// when its client goes, which the guest would not learn otherwise.
func (c heardConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// handshakeWait bounds the beginning of a session with a guest that runs; a booting one is bounded by its start.
const handshakeWait = 30 * time.Second

// deafAfter is when a connection over which no answer came is given up for another one: a guest that was paused while daemons
// came and went may read what it is sent and answer nothing, until its host connects anew. It is more than the slowest guest
// that is up takes to answer; one that boots does not care.
const deafAfter = 10 * time.Second

func newAgent(d vmm.Driver, ref vmm.Ref) *agent {
	ctx, stop := context.WithCancel(context.Background())
	a := &agent{driver: d, ref: ref, ctx: ctx, stop: stop, one: make(chan struct{}, 1), deafAfter: deafAfter}
	a.client = guest.NewClient(a.dial)
	return a
}

// dial makes a connection to the agent. HTTP transports give a context without an end here; a guest may be hostile.
func (a *agent) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return heardConn{conn, &a.heard}, nil
}

func (a *agent) connect(ctx context.Context) (net.Conn, error) {
	if !a.driver.Multiplexed() {
		return a.driver.DialAgent(ctx, a.ref)
	}
	mux, err := a.session(ctx)
	if err != nil {
		return nil, err
	}
	return mux.Dial(ctx)
}

// session returns the session, beginning one if it broke or never was. Callers that come meanwhile wait for its result.
func (a *agent) session(ctx context.Context) (*guest.Mux, error) {
	select {
	case a.one <- struct{}{}:
		defer func() { <-a.one }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if mux := a.alive(); mux != nil {
		return mux, nil
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshakeWait)
		defer cancel()
	}
	mux, err := a.begin(ctx)
	for errors.Is(err, errDeaf) {
		mux, err = a.begin(ctx)
	}
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		_ = mux.Close()
		return nil, net.ErrClosed
	}
	a.mux = mux
	return mux, nil
}

var errDeaf = errors.New("the guest does not answer on this connection")

// begin begins a session over one connection; errDeaf when another one is to be tried.
func (a *agent) begin(ctx context.Context) (*guest.Mux, error) {
	conn, err := a.driver.DialAgent(ctx, a.ref)
	if err != nil {
		return nil, err
	}
	patient, cancel := context.WithTimeout(ctx, a.deafAfter)
	defer cancel()
	mux, err := guest.NewMux(patient, conn)
	if err != nil && patient.Err() != nil && ctx.Err() == nil {
		return nil, errDeaf
	}
	return mux, err
}

// alive is the session that has not broken.
func (a *agent) alive() *guest.Mux {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mux == nil {
		return nil
	}
	select {
	case <-a.mux.Done():
		_ = a.mux.Close()
		a.mux = nil
	default:
	}
	return a.mux
}

// close ends the session and whoever waits for one. It does not wait for the guest.
func (a *agent) close() {
	a.stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mux != nil {
		_ = a.mux.Close()
		a.mux = nil
	}
}

// restartPatience is how long somebody who needs a guest waits for its restart to be due; else they are told.
const restartPatience = 10 * time.Second

// Agent returns a client of the VM's agent, for requests on a running VM. A VM that is being started or adopted is
// waited for.
func (e *Engine) Agent(ctx context.Context, ref string) (*guest.Client, error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	return e.agentOf(ctx, r)
}

// agentOf is Agent for a record that has just been read: mostly its guest is reached, and nothing needs to be read again.
func (e *Engine) agentOf(ctx context.Context, r vm.VMRecord) (c *guest.Client, err error) {
	reached := func(r vm.VMRecord) (bool, error) {
		if r.Want != vm.WantRunning {
			return true, notRunning(r)
		}
		if left := time.Until(r.Runtime.RestartAt); plan.Pending(r) && left > restartPatience {
			return true, vm.Errorf(vm.CodeNotRunning, "VM %s waits for its restart, in %v: %s", r.Name, left.Round(time.Second), or(r.Runtime.LastError, "it has ended")).
				WithHint("banger vm start %s starts it at once", r.Name)
		}
		if w := e.known(r.ID); w != nil {
			if w.isPaused() {
				return true, vm.Errorf(vm.CodeNotRunning, "VM %s is paused", r.Name).WithHint("banger vm resume %s", r.Name)
			}
			if c = w.client(); c == nil {
				return false, w.unreachable()
			}
			if !e.vmAlive(r) { // its worker has not seen that yet
				c = nil
			}
		}
		return c != nil, nil
	}
	if there, err := reached(r); there {
		return c, err
	}
	bounded, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_, err = e.Watch().until(bounded, r.ID, nil, reached)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = vm.Errorf(vm.CodeUnavailable, "the agent of VM %s does not answer", r.Name).WithHint("banger vm logs %s shows its console", r.Name)
	}
	return c, err
}

// Unreached is the error of a request to a VM's agent that got no answer: it tells of a machine that has just ended.
func (e *Engine) Unreached(ctx context.Context, ref string, err error) error {
	r, rerr := e.Store.VMByRef(ctx, ref)
	switch {
	case rerr != nil:
		return rerr
	case r.Want != vm.WantRunning:
		return notRunning(r)
	case e.vmAlive(r):
		return vm.Errorf(vm.CodeUnavailable, "reach the agent of VM %s: %w", r.Name, err).WithHint("banger vm logs %s shows the guest's console", r.Name)
	}
	policy := "it is stopped now"
	if p, perr := vm.ParseRestart(r.Spec.Restart); perr == nil && p.When != vm.RestartNo {
		policy = "its restart policy (" + r.Spec.Restart + ") may start it again"
	}
	return vm.Errorf(vm.CodeNotRunning, "the machine of VM %s has just ended; %s", r.Name, policy).WithHint("banger vm show %s tells why, and what comes next", r.Name)
}

// Session is Agent for an exec session. Call end when it is over: a VM made with --rm goes with it.
func (e *Engine) Session(ctx context.Context, ref string) (c *guest.Client, end func(), err error) {
	r, err := e.Store.VMByRef(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	end = func() {}
	if w := e.known(r.ID); w != nil {
		end = w.beginSession()
	}
	c, err = e.agentOf(ctx, r)
	if err != nil {
		end()
		return nil, nil, err
	}
	return c, end, nil
}

func notRunning(r vm.VMRecord) error {
	err := vm.Errorf(vm.CodeNotRunning, "VM %s is not running (%s)", r.Name, r.Runtime.State)
	if r.Runtime.LastError != "" {
		err = vm.Errorf(vm.CodeNotRunning, "VM %s is not running (%s: %s)", r.Name, r.Runtime.State, r.Runtime.LastError)
	}
	switch {
	case r.Want == vm.WantGone:
		return err
	case r.Runtime.State == vm.StateStarting:
		return err.WithHint("banger vm wait --for ready %s waits until it is", r.Name)
	}
	return err.WithHint("banger vm start %s", r.Name)
}

// client returns the agent's client once the guest is configured, else nil.
func (w *worker) client() *guest.Client {
	if a := w.reached(); a != nil {
		return a.client
	}
	return nil
}

// reached is the session to a guest that is configured, else nil.
func (w *worker) reached() *agent {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready {
		return nil
	}
	return w.agent
}

// unreachable is why it never will be, as long as the machine runs.
func (w *worker) unreachable() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cutOff
}

func (w *worker) closeAgent() {
	w.mu.Lock()
	a := w.agent
	w.agent, w.ready, w.cutOff = nil, false, nil
	w.mu.Unlock()
	if a != nil {
		a.close()
	}
}
