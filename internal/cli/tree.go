package cli

import (
	"os"

	"github.com/spf13/cobra"
)

// Tree is the tree of commands, to be read by what documents them (scripts/man). It is not to be run.
func Tree() *cobra.Command {
	root := (&app{in: os.Stdin, out: os.Stdout, err: os.Stderr}).root()
	root.InitDefaultHelpCmd()
	return root
}
