package cli

import (
	"errors"

	"github.com/spf13/pflag"
)

// sshFlags are the flags of ssh that `vm ssh` takes and passes on, in the order in which they were given: to ssh, the
// first value of an option counts.
type sshFlags struct{ args []string }

func (s *sshFlags) register(f *pflag.FlagSet) {
	for _, o := range []struct{ letter, name, help string }{
		{"o", "option", "`OPTION` for ssh, as in ssh_config; before banger's own"},
		{"L", "local-forward", "listen here, at `[ADDR:]PORT:HOST:PORT`, and connect from the VM to HOST:PORT"},
		{"R", "remote-forward", "listen in the VM, at `[ADDR:]PORT:HOST:PORT`, and connect from here to HOST:PORT"},
		{"D", "dynamic-forward", "listen here, at `[ADDR:]PORT`, as a SOCKS proxy into the VM"},
		{"i", "identity", "another private key, in `FILE`, to offer to the VM"},
	} {
		f.VarP(&sshFlag{to: s, letter: o.letter}, o.name, o.letter, o.help)
	}
	for _, o := range []struct{ letter, name, help string }{
		{"t", "tty", "a terminal for a command too; twice: even where there is none here"},
		{"T", "no-tty", "no terminal, not even for a shell"},
		{"A", "forward-agent", "forward your ssh agent"},
		{"N", "no-command", "run nothing in the VM: only forward"},
	} {
		f.VarPF(&sshFlag{to: s, letter: o.letter, alone: true}, o.name, o.letter, o.help).NoOptDefVal = "true"
	}
}

// sshFlag is one of them; alone: it takes no value.
type sshFlag struct {
	to     *sshFlags
	letter string
	alone  bool
}

func (f *sshFlag) Set(value string) error {
	f.to.args = append(f.to.args, "-"+f.letter)
	if !f.alone {
		f.to.args = append(f.to.args, value)
	} else if value != "true" {
		return errors.New("it takes no value")
	}
	return nil
}

func (f *sshFlag) String() string { return "" }

func (f *sshFlag) Type() string {
	if f.alone {
		return "bool"
	}
	return "string"
}
