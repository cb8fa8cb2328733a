package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger/internal/api"
	"banger/internal/guest"
	"banger/internal/vm"
)

// Version asks who answers.
func (c *Client) Version(ctx context.Context) (v api.Version, err error) {
	err = c.json(ctx, "asking its version", http.MethodGet, api.PathVersion, nil, &v)
	return v, err
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (s api.Status, err error) {
	err = c.json(ctx, "asking its status", http.MethodGet, api.PathStatus, nil, &s)
	return s, err
}

// Shutdown asks the daemon to end. It returns when the daemon has agreed, not when it is gone.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.json(ctx, "asking it to stop", http.MethodPost, api.PathStop, nil, nil)
}

// VMs lists all VMs.
func (c *Client) VMs(ctx context.Context) (all []api.VMListed, err error) {
	err = c.json(ctx, "listing VMs", http.MethodGet, api.PathVMs, nil, &all)
	return all, err
}

// Summaries returns a few words of every VM.
func (c *Client) Summaries(ctx context.Context) (all []api.VMSummary, err error) {
	err = c.json(ctx, "listing VMs", http.MethodGet, api.PathSummary, nil, &all)
	return all, err
}

// VM returns one VM with what is true of it now.
func (c *Client) VM(ctx context.Context, ref string) (v api.VMView, err error) {
	err = c.json(ctx, "reading VM "+ref, http.MethodGet, path(api.PathVM, ref), nil, &v)
	return v, err
}

// Stats returns a VM's load.
func (c *Client) Stats(ctx context.Context, ref string) (s api.VMStats, err error) {
	err = c.json(ctx, "asking VM "+ref+" for its load", http.MethodGet, path(api.PathVMStats, ref), nil, &s)
	return s, err
}

// Processes lists the processes of a VM's guest.
func (c *Client) Processes(ctx context.Context, ref string) (p guest.Processes, err error) {
	err = c.json(ctx, "listing the processes of VM "+ref, http.MethodGet, path(api.PathVMTop, ref), nil, &p)
	return p, err
}

// Ports tells what a VM publishes, and what listens in its guest.
func (c *Client) Ports(ctx context.Context, ref string) (p api.VMPorts, err error) {
	err = c.json(ctx, "asking for the ports of VM "+ref, http.MethodGet, path(api.PathVMPorts, ref), nil, &p)
	return p, err
}

// ChangePorts publishes ports of a VM, and others no longer.
func (c *Client) ChangePorts(ctx context.Context, ref string, r api.PortsRequest) (*vm.VMRecord, error) {
	return c.record(ctx, "changing the ports of VM "+ref, http.MethodPost, path(api.PathVMPorts, ref), r, nil)
}

// Jobs lists the jobs of a VM's guest.
func (c *Client) Jobs(ctx context.Context, ref string) (j guest.Jobs, err error) {
	err = c.json(ctx, "listing the jobs of VM "+ref, http.MethodGet, path(api.PathVMJobs, ref), nil, &j)
	return j, err
}

// SignalJob sends a job of a VM's guest a signal.
func (c *Client) SignalJob(ctx context.Context, ref string, r guest.SignalRequest) error {
	return c.json(ctx, "sending job "+r.Job+" of VM "+ref+" a signal", http.MethodPost, path(api.PathSignal, ref), r, nil)
}

// Create makes a VM, and starts it where asked.
func (c *Client) Create(ctx context.Context, r api.CreateRequest, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	return c.record(ctx, "creating a VM", http.MethodPost, api.PathVMs, r, onEvent)
}

// Start starts a VM and waits until it is ready.
func (c *Client) Start(ctx context.Context, ref string, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	return c.record(ctx, "starting VM "+ref, http.MethodPost, path(api.PathVMStart, ref), nil, onEvent)
}

// Stop ends a VM's run.
func (c *Client) Stop(ctx context.Context, ref string, r api.StopRequest, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	return c.record(ctx, "stopping VM "+ref, http.MethodPost, path(api.PathVMStop, ref), r, onEvent)
}

// Restart ends a VM's run and starts it again.
func (c *Client) Restart(ctx context.Context, ref string, r api.StopRequest, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	return c.record(ctx, "restarting VM "+ref, http.MethodPost, path(api.PathRestart, ref), r, onEvent)
}

// Pause halts a VM's processors.
func (c *Client) Pause(ctx context.Context, ref string) (*vm.VMRecord, error) {
	return c.record(ctx, "pausing VM "+ref, http.MethodPost, path(api.PathPause, ref), nil, nil)
}

// Resume lets a paused VM go on.
func (c *Client) Resume(ctx context.Context, ref string) (*vm.VMRecord, error) {
	return c.record(ctx, "resuming VM "+ref, http.MethodPost, path(api.PathResume, ref), nil, nil)
}

// Rename gives a VM another name. pending is as of api.Message.
func (c *Client) Rename(ctx context.Context, ref, name string) (r *vm.VMRecord, pending []string, err error) {
	return c.change(ctx, "renaming VM "+ref, http.MethodPost, path(api.PathRename, ref), api.RenameRequest{Name: name})
}

// Set changes what a VM is. pending is as of api.Message.
func (c *Client) Set(ctx context.Context, ref string, r api.SetRequest) (record *vm.VMRecord, pending []string, err error) {
	return c.change(ctx, "changing VM "+ref, http.MethodPatch, path(api.PathVM, ref), r)
}

// change makes a request whose outcome is a VM, of which a part may wait for its next start.
func (c *Client) change(ctx context.Context, what, method, path string, body any) (*vm.VMRecord, []string, error) {
	m, err := c.Stream(ctx, what, method, path, body, nil)
	if err != nil {
		return nil, nil, err
	}
	if m.VM == nil {
		return nil, nil, vm.Errorf(vm.CodeInternal, "%s: the daemon's answer names no VM", what)
	}
	return m.VM, m.Pending, nil
}

// Wait returns when a VM is ready, stopped or gone, as until says.
func (c *Client) Wait(ctx context.Context, ref, until string) (r vm.VMRecord, err error) {
	err = c.json(ctx, "waiting for VM "+ref, http.MethodGet, path(api.PathVMWait, ref)+"?"+url.Values{"for": {until}}.Encode(), nil, &r)
	return r, err
}

// record makes a stream request whose outcome is a VM.
func (c *Client) record(ctx context.Context, what, method, path string, body any, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	m, err := c.Stream(ctx, what, method, path, body, onEvent)
	if err != nil {
		return nil, err
	}
	if m.VM == nil {
		return nil, vm.Errorf(vm.CodeInternal, "%s: the daemon's answer names no VM", what)
	}
	return m.VM, nil
}

// Delete removes a VM with everything of it, and returns when nothing is left.
func (c *Client) Delete(ctx context.Context, ref string, onEvent func(vm.Event)) error {
	_, err := c.Stream(ctx, "deleting VM "+ref, http.MethodDelete, path(api.PathVM, ref), nil, onEvent)
	return err
}

// DeleteStopped is Delete for a VM that must not run: one that does is left, and an error.
func (c *Client) DeleteStopped(ctx context.Context, ref string, onEvent func(vm.Event)) error {
	_, err := c.Stream(ctx, "deleting VM "+ref, http.MethodDelete, path(api.PathVM, ref)+"?if=stopped", nil, onEvent)
	return err
}

// Reset has a VM's system disk made anew.
func (c *Client) Reset(ctx context.Context, ref string, r api.ResetRequest, onEvent func(vm.Event)) (*vm.VMRecord, error) {
	return c.record(ctx, "resetting VM "+ref, http.MethodPost, path(api.PathReset, ref), r, onEvent)
}

// LogQuery says which log of a VM is wanted, and how much of it.
type LogQuery struct {
	Follow bool
	Tail   int       // only the last lines; < 0 = all
	Daemon bool      // what the daemon noted about the VM, not its console
	Since  time.Time // of that only what is younger
}

// Logs opens a log of a VM.
func (c *Client) Logs(ctx context.Context, ref string, l LogQuery) (io.ReadCloser, error) {
	q := url.Values{}
	if l.Follow {
		q.Set("follow", "1")
	}
	if l.Tail >= 0 {
		q.Set("tail", strconv.Itoa(l.Tail))
	}
	if l.Daemon {
		q.Set("of", "daemon")
	}
	if !l.Since.IsZero() {
		q.Set("since", l.Since.Format(time.RFC3339Nano))
	}
	what := "reading the log of VM " + ref
	resp, err := c.send(ctx, what, http.MethodGet, path(api.PathVMLogs, ref)+"?"+q.Encode(), nil, nil) //nolint:bodyclose // who reads it closes it
	if err != nil {
		return nil, err
	}
	return text{resp.Body, func(err error) error { return c.gone(ctx, what, err) }}, nil
}

// text is an answer that is read as it comes; gone says why it broke off.
type text struct {
	io.ReadCloser
	gone func(error) error
}

func (t text) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = t.gone(err)
	}
	return n, err
}

// Doctor has the daemon look at its host.
func (c *Client) Doctor(ctx context.Context) (problems []api.Problem, err error) {
	err = c.json(ctx, "checking the host", http.MethodGet, api.PathDoctor, nil, &problems)
	return problems, err
}
