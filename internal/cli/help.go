package cli

import (
	"github.com/spf13/cobra"
)

func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// newHelp takes the place of cobra's, which answers an unknown command with success.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND...]",
		Short:             "Explain a command",
		Long:              "Explain a command, as its --help does.",
		Example:           "  banger help vm run\n  banger help ps",
		ValidArgsFunction: completeHelp,
		RunE: func(cmd *cobra.Command, words []string) error {
			found := cmd.Root()
			for _, word := range words {
				next := child(found, word)
				if next == nil {
					return group(found, []string{word})
				}
				found = next
			}
			found.InitDefaultHelpFlag() // cobra does that only to the command it runs
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}

// child is the subcommand that a word names, or nil.
func child(cmd *cobra.Command, word string) *cobra.Command {
	for _, sub := range cmd.Commands() {
		if sub.Name() == word || sub.HasAlias(word) {
			return sub
		}
	}
	return nil
}

// completeHelp completes the words of `banger help`.
func completeHelp(cmd *cobra.Command, words []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	found := cmd.Root()
	for _, word := range words {
		if found = child(found, word); found == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	var names []cobra.Completion
	for _, sub := range found.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
