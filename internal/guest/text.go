package guest

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds, in bytes, a sentence or name that a guest chose: it goes to terminals, logs and the database.
const maxText = 256

// Plain makes text from a guest fit to be shown and kept: what is not printable (escape sequences, line ends, broken
// UTF-8) becomes a space, and of a long text the middle is left out, since errors begin with what was tried and end with
// why it failed. The result has 256 bytes at most.
func Plain(s string) string {
	const (
		gap  = "…"
		tail = 100
		head = maxText - tail - len(gap)
	)
	if len(s) > 4*maxText { // before it costs anything
		s = s[:2*maxText] + s[len(s)-2*maxText:]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	begin, end := head, len(s)-tail
	for !utf8.RuneStart(s[begin]) {
		begin--
	}
	for !utf8.RuneStart(s[end]) {
		end++
	}
	return s[:begin] + gap + s[end:]
}

// plain bounds what the agent says of itself and its guest.
func (h *Hello) plain() {
	for _, s := range []*string{&h.Version, &h.BootID, &h.Configured, &h.Hostname, &h.Init, &h.Ending} {
		*s = Plain(*s)
	}
}

// plain bounds what a guest says of a process.
func (p *Process) plain() {
	for _, s := range []*string{&p.User, &p.State, &p.Command} {
		*s = Plain(*s)
	}
}

// plain bounds what a guest says of a listener.
func (l *Listener) plain() {
	for _, s := range []*string{&l.Protocol, &l.Address, &l.Process} {
		*s = Plain(*s)
	}
}

// plainError is an error whose text may quote the guest.
type plainError struct{ error }

func (e plainError) Error() string { return Plain(e.error.Error()) }
func (e plainError) Unwrap() error { return e.error }
