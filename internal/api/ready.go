package api

// ReadyEnv names the environment variable with the number of the file descriptor that a starting daemon writes one Ready
// to, as a line of JSON, and closes, once it serves or gives up. Not set = nobody waits.
const ReadyEnv = "BANGERD_READY_FD"

// Ready tells who started a daemon how that went.
type Ready struct {
	Ready   bool       `json:"ready,omitempty"`
	Version string     `json:"version,omitempty"`
	Error   *ErrorBody `json:"error,omitempty"` // why it does not serve
}
