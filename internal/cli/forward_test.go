package cli

import (
	"syscall"
	"testing"
	"time"
)

// Who sends a second signal wants to leave; who sends one to a command that lives, and heeds it, does not.
func TestInsistence(t *testing.T) {
	type sent struct {
		sig   syscall.Signal
		at    time.Duration
		reads int64
		ends  bool
	}
	for name, all := range map[string][]sent{
		"one of each that is no end":         {{syscall.SIGHUP, 0, 0, false}, {syscall.SIGHUP, 0, 0, false}, {syscall.SIGUSR1, 0, 0, false}},
		"twice, quickly":                     {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Second, 9, true}},
		"two kinds, quickly":                 {{syscall.SIGINT, 0, 1, false}, {syscall.SIGTERM, time.Second, 9, true}},
		"a program that takes Ctrl-C often":  {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Minute, 2, false}, {syscall.SIGINT, time.Hour, 3, false}},
		"Ctrl-C into silence":                {{syscall.SIGINT, 0, 1, false}, {syscall.SIGINT, time.Minute, 1, true}},
		"SIGTERM again, whatever is said":    {{syscall.SIGTERM, 0, 1, false}, {syscall.SIGTERM, time.Minute, 99, true}},
		"SIGTERM after an old Ctrl-C":        {{syscall.SIGINT, 0, 1, false}, {syscall.SIGTERM, time.Minute, 2, false}, {syscall.SIGTERM, time.Hour, 3, true}},
		"SIGHUP does not count as the first": {{syscall.SIGHUP, 0, 0, false}, {syscall.SIGTERM, 0, 0, false}},
	} {
		var p insistence
		for i, s := range all {
			if got := p.ends(s.sig, time.Unix(1000, 0).Add(s.at), s.reads); got != s.ends {
				t.Errorf("%s: %d. %v ends it: %v", name, i+1, s.sig, got)
			}
		}
	}
}
