package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// API is a client of one Firecracker's API socket. Source of the calls: Firecracker's API description (swagger, v1.12).
type API struct {
	http *http.Client
}

// InstanceInfo is what GET / answers.
type InstanceInfo struct {
	ID         string `json:"id"`
	State      string `json:"state"` // "Not started", "Running", "Paused"
	VMMVersion string `json:"vmm_version"`
	AppName    string `json:"app_name"`
}

// The states of an instance.
const (
	StateNotStarted = "Not started"
	StateRunning    = "Running"
	StatePaused     = "Paused"
)

// NewAPI makes a client; it does not dial yet.
func NewAPI(socket string) *API {
	return &API{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, socket)
		},
		// One connection at a time is all that Firecracker's one API thread serves well.
		DisableKeepAlives: true,
	}}}
}

// Info asks who answers, and how it is.
func (a *API) Info(ctx context.Context) (info InstanceInfo, err error) {
	err = a.call(ctx, http.MethodGet, "/", nil, &info)
	return info, err
}

// Version is the VMM's own, "1.12.1".
func (a *API) Version(ctx context.Context) (string, error) {
	var v struct {
		Version string `json:"firecracker_version"`
	}
	err := a.call(ctx, http.MethodGet, "/version", nil, &v)
	return v.Version, err
}

// Pause stops the guest's processors; pausing twice is success.
func (a *API) Pause(ctx context.Context) error { return a.state(ctx, StatePaused) }

// Resume lets them run on; resuming what runs is success.
func (a *API) Resume(ctx context.Context) error { return a.state(ctx, "Resumed") }

func (a *API) state(ctx context.Context, to string) error {
	return a.call(ctx, http.MethodPatch, "/vm", map[string]string{"state": to}, nil)
}

// FlushMetrics writes the metrics file now.
func (a *API) FlushMetrics(ctx context.Context) error {
	return a.call(ctx, http.MethodPut, "/actions", map[string]string{"action_type": "FlushMetrics"}, nil)
}

// MachineConfig reads what the machine was given.
func (a *API) MachineConfig(ctx context.Context) (c MachineConfig, err error) {
	err = a.call(ctx, http.MethodGet, "/machine-config", nil, &c)
	return c, err
}

// maxAnswer bounds what is read of an answer: the VMM may have been taken over by its guest.
const maxAnswer = 1 << 20

func (a *API) call(ctx context.Context, method, path string, body, answer any) error {
	what := "ask firecracker: " + method + " " + path
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, in)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %s", what, resp.Status, fault(b))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// fault takes Firecracker's own words out of an error's body.
func fault(body []byte) string {
	var f struct {
		Message string `json:"fault_message"`
	}
	if json.Unmarshal(body, &f) == nil && f.Message != "" {
		return strings.TrimSpace(f.Message)
	}
	return fmt.Sprintf("%.200q", body)
}
