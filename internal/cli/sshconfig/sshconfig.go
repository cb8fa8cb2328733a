// Package sshconfig writes the OpenSSH client configuration by which `ssh web.vm` reaches the VM web, and puts it into a
// user's own configuration and out of it again.
//
// It touches two files: one that is its own, and the user's config, in which it owns the lines of one block and nothing
// else. It asks no daemon and knows nothing of single VMs.
package sshconfig

import (
	"fmt"
	"strings"

	"banger/internal/vm"
)

// Host is what the configuration leads to: one daemon's VMs.
type Host struct {
	Banger       string   // absolute path of the program
	Env          []string // arguments of env(1) before it, such as BANGER_ROOT=DIR: which daemon is meant
	IdentityFile string
}

// header is the first line of each file that Text has made. A file without it is not ours.
const header = "# For OpenSSH clients (8.5 or newer) to reach VMs by name. Made by 'banger ssh-config'; changes are lost when it is made anew."

// Text is the configuration, in the format of ssh_config(5), valid for any user that may command the daemon.
//
// A VM's host key is asked for when it is needed, so that a key is known as long as its VM is there and no longer. The
// user's known hosts are not looked at: a name of a VM that is gone is free for the next. Connections are not shared,
// for the same reason. What a VM could abuse (agent, X11) is off unless the command line asks for it.
func (h Host) Text() (string, error) {
	for _, s := range append([]string{h.Banger, h.IdentityFile}, h.Env...) {
		if strings.ContainsAny(s, "\n\r\x00") {
			return "", vm.Errorf(vm.CodeInvalid, "write an ssh configuration with %q: it has a line end", s).WithHint("use another BANGER_ROOT")
		}
	}
	var shell, words []string
	for _, s := range append(append([]string{"/usr/bin/env"}, h.Env...), h.Banger) {
		shell = append(shell, Percent(Quote(s)))
		words = append(words, Word(s))
	}
	// ProxyCommand is a line for the user's shell. Clients before 9.6 put whatever host name they were given into it,
	// be it out of a git submodule's URL: hence the quotes, and the pattern that names with a quote do not match.
	return header + `
Host *.vm "!*'*"
    ProxyCommand ` + strings.Join(shell, " ") + ` vm proxy '%h'
    KnownHostsCommand ` + strings.Join(words, " ") + ` vm known-hosts %H
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    CheckHostIP no
    UpdateHostKeys no
    User root
    IdentityFile ` + Word(h.IdentityFile) + `
    IdentitiesOnly yes
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    ControlMaster no
    ControlPath none
    ForwardAgent no
    ForwardX11 no
`, nil
}

// Quote makes one word of a POSIX shell.
func Quote(s string) string {
	if s != "" && strings.IndexFunc(s, unsafe) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func unsafe(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("@%+=:,./-_", r)
}

// Percent protects s from ssh's %-tokens.
func Percent(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// Word writes a path, or an argument, as one word of an ssh option.
func Word(s string) string {
	return fmt.Sprintf(`"%s"`, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(s))
}
