package cli

import (
	"slices"

	"github.com/spf13/cobra"
)

// completeVMs completes VM names in a shell, up to most of them (0 = any number). It starts no daemon: a key pressed in
// a shell must not.
func (a *app) completeVMs(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, _, err := a.connectRunning()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		records, err := c.Summaries(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, r := range records {
			if !slices.Contains(args, r.Name) {
				names = append(names, cobra.CompletionWithDesc(r.Name, string(r.State)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
