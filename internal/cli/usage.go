package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/vm"
)

// usage makes the error of a wrong command line; it points to the command's help.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return vm.Errorf(vm.CodeInvalid, format, args...).WithHint("see '%s --help'", cmd.CommandPath())
}

// flagError tells of the flags that were probably meant where one does not exist.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := meant(unknown.GetSpecifiedName(), names); len(near) > 0 {
			return vm.Errorf(vm.CodeInvalid, "%w", err).WithHint("did you mean --%s?", strings.Join(near, " or --"))
		}
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = ownWords(invalid)
	}
	return usage(cmd, "%w", err)
}

// exclusive refuses more than one of these flags. Shells do not complete the others beside one, either.
func exclusive(cmd *cobra.Command, flags ...string) {
	cmd.MarkFlagsMutuallyExclusive(flags...)
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		var set []string
		for _, f := range flags {
			if cmd.Flags().Changed(f) {
				set = append(set, "--"+f)
			}
		}
		if last := len(set) - 1; last > 0 {
			return usage(cmd, "%s and %s contradict each other", strings.Join(set[:last], ", "), set[last])
		}
		if args == nil {
			return nil
		}
		return args(cmd, given)
	}
}

// group is the Args of a command that only groups others: cobra would answer an unknown one with help and success.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	e := vm.Errorf(vm.CodeInvalid, "unknown command %q", cmd.CommandPath()+" "+args[0])
	if near := meantCommands(cmd, args[0]); len(near) > 0 {
		return e.WithHint("did you mean '%s'?", strings.Join(near, "' or '"))
	}
	return e.WithHint("see '%s --help'", cmd.CommandPath())
}

// exactly takes one argument for each of the names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(cmd, "missing %s", names[len(args)])
		}
		return atMost(names...)(cmd, args)
	}
}

// atMost takes up to one argument for each of the names.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// oneOrMore takes an argument for each of the names, and any number more for the last.
func oneOrMore(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(cmd, "missing %s", names[len(args)])
		}
		return nil
	}
}

// nameAndCommand splits "NAME [--] CMD ARG...". A flag after NAME would silently become the command's first word.
func nameAndCommand(cmd *cobra.Command, args []string) (name string, argv []string, err error) {
	if len(args) == 0 {
		return "", nil, usage(cmd, "missing NAME")
	}
	name, argv = args[0], args[1:]
	if len(argv) > 0 && argv[0] == "--" {
		return name, argv[1:], nil
	}
	if len(argv) > 0 && strings.HasPrefix(argv[0], "-") {
		return "", nil, usage(cmd, "flag %s stands after the VM's name: put it before, or -- between", argv[0])
	}
	return name, argv, nil
}
