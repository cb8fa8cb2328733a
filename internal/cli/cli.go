// Package cli is the command line of banger: one file per command. It turns flags into requests to the daemon and
// answers into text, JSON and exit codes.
//
// It decides nothing about VMs and touches nothing of the host but its own terminal, the user's files in `vm cp`, and
// the daemon's start (package launch). Everyday commands must start in milliseconds: nothing heavy may be imported.
package cli

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"banger/internal/act"
	"banger/internal/version"
)

// app is one run of the program.
type app struct {
	in       *os.File
	out, err *os.File // out carries what was asked for, err everything meant for people
	signals  *signals
	verbose  bool // -v
}

// Main runs one command line and returns the exit code.
func Main(args []string) int {
	debug.SetGCPercent(400) // a short life: collecting what a long list decodes to costs more than it takes
	ctx, signals := catchSignals(context.Background())
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, signals: signals}
	if err := act.Arm(os.Getenv); err != nil {
		return a.exitCode(err)
	}
	root := a.root(args...)
	root.SetArgs(args)
	return a.exitCode(root.ExecuteContext(ctx))
}

// root is the tree of all commands; of one about VMs that args name nothing but what leads to it, for the others would take
// longer to make than it takes to be understood.
func (a *app) root(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "Throw-away Linux machines in one command",
		Long: `banger makes a Linux virtual machine, runs a command in it and brings back its output and exit status.

Machines are kept until they are deleted: stop and start them, open a shell, copy files in and out.
The daemon bangerd does the work; it starts by itself. BANGER_ROOT=DIR keeps everything of one daemon under DIR.`,
		Example: `  banger vm run -- cat /etc/hostname      make a VM, run a command in it
  banger vm run --rm -- make test         the same, and nothing is left
  banger vm run --name web                make a VM named web and open a shell in it
  banger vm exec web -- uname -r          run a command in it
  banger vm ssh web                       connect by ssh
  banger ps                               list VMs
  banger vm delete web                    remove it
  banger -v vm start web                  tell on stderr what takes how long`,
		Args:             group,
		RunE:             a.bare,
		Version:          version.String(),
		SilenceErrors:    true, // exit.go prints them
		SilenceUsage:     true,
		TraverseChildren: true,
	}
	root.SetVersionTemplate("banger {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "tell on stderr what is asked of the daemon, what it does, and how long that takes")
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.DisableDefaultCmd = true // there is one of our own
	if one := vmCommand(args); one != nil {
		group := newVM()
		group.AddCommand(one(a))
		root.AddCommand(group)
	} else {
		root.AddCommand(a.all()...)
	}
	root.SetHelpCommand(newHelp())
	for _, group := range append(root.Commands(), root) {
		if group.HasSubCommands() {
			group.Flags().SetInterspersed(false) // behind an unknown command flags are that one's: its name is what is wrong
		}
	}
	return root
}

// all makes every command there is.
func (a *app) all() []*cobra.Command {
	ps := newList(a)
	ps.Use, ps.Aliases, ps.Short, ps.Example = "ps", nil, "List VMs (short for vm list)", "  banger ps\n  banger ps --json"
	group := newVM()
	for _, c := range vmCommands {
		group.AddCommand(c.make(a))
	}
	return []*cobra.Command{
		group, newImage(a), newKernel(a), newVMM(a), newDaemon(a), newDoctor(a), newVersion(a), newCompletion(a), newSSHConfig(a), newEvents(a), ps,
	}
}
