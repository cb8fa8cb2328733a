package agent

import (
	"fmt"
	"strings"

	"banger/internal/guest"
)

// bootArgs is what the kernel command line says about this boot.
type bootArgs struct {
	root, work, modules string // "serial:NAME" or "dev:NAME"; empty = none
	init                string // "" = stay PID 1, else path of the image's init
	channel             string // "virtio:NAME" or "vsock:PORT"
	prove               bool
}

// parseCmdline picks our parameters out of /proc/cmdline. The last of several wins, as in the kernel; what is not ours
// is ignored. Double quotes protect spaces, as in the kernel.
func parseCmdline(cmdline string) (bootArgs, error) {
	var a bootArgs
	for _, word := range splitCmdline(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case guest.ArgRoot:
			a.root = value
		case guest.ArgWork:
			a.work = value
		case guest.ArgModules:
			a.modules = value
		case guest.ArgInit:
			a.init = value
		case guest.ArgChannel:
			a.channel = value
		case guest.ArgProve:
			a.prove = value == "1"
		}
	}
	if a.init == "agent" {
		a.init = ""
	}
	return a, a.check()
}

func (a bootArgs) check() error {
	if a.prove {
		return nil // needs nothing else
	}
	if a.root == "" {
		return fmt.Errorf("kernel parameter %s is missing", guest.ArgRoot)
	}
	for _, d := range []struct{ arg, value string }{
		{guest.ArgRoot, a.root}, {guest.ArgWork, a.work}, {guest.ArgModules, a.modules},
	} {
		if d.value == "" {
			continue
		}
		kind, name, _ := strings.Cut(d.value, ":")
		if kind != "serial" && kind != "dev" || name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("kernel parameter %s=%q: want serial:NAME or dev:NAME", d.arg, d.value)
		}
	}
	if a.init != "" && !strings.HasPrefix(a.init, "/") {
		return fmt.Errorf("kernel parameter %s=%q: want agent or an absolute path", guest.ArgInit, a.init)
	}
	if kind, name, _ := strings.Cut(a.channel, ":"); kind != "virtio" && kind != "vsock" || name == "" {
		return fmt.Errorf("kernel parameter %s=%q: want virtio:NAME or vsock:PORT", guest.ArgChannel, a.channel)
	}
	return nil
}

// splitCmdline splits at white space outside double quotes, and removes the quotes.
func splitCmdline(s string) []string {
	var words []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range s {
		switch {
		case r == '"':
			quoted, begun = !quoted, true
		case !quoted && (r == ' ' || r == '\t' || r == '\n' || r == '\r'):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}
