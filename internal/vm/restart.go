package vm

import (
	"strconv"
	"strings"
)

// RestartPolicy says which VMs are started again when their run has ended and nobody asked for that.
type RestartPolicy struct {
	When string // RestartNo, RestartOnFailure or RestartAlways
	Max  int    // restarts in a row, with RestartOnFailure; 0 = no bound
}

// When a VM is started again.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure" // its VMM crashed or was killed, or its guest's kernel panicked
	RestartAlways    = "always"     // that, and its guest powered off or rebooted, or the host was rebooted
)

// MaxRestarts is the highest bound a policy can name.
const MaxRestarts = 1000

// ParseRestart reads "no" (also ""), "always", "on-failure" or "on-failure:N".
func ParseRestart(s string) (RestartPolicy, error) {
	when, bound, bounded := strings.Cut(s, ":")
	p := RestartPolicy{When: when}
	switch {
	case s == "":
		return RestartPolicy{When: RestartNo}, nil
	case !bounded && (when == RestartNo || when == RestartAlways || when == RestartOnFailure):
		return p, nil
	case bounded && when == RestartOnFailure:
		n, err := strconv.Atoi(bound)
		if err == nil && n >= 1 && n <= MaxRestarts {
			p.Max = n
			return p, nil
		}
	}
	return p, Errorf(CodeInvalid, "restart policy %q: it must be no, on-failure, on-failure:N or always", s).
		WithHint("N is how often in a row, from 1 to %d", MaxRestarts)
}
