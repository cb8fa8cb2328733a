package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/vm"
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

// completeHosts completes a VM as ssh takes a host: after a USER@ as well.
func (a *app) completeHosts(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names, directive := a.completeVMs(1)(cmd, args, word)
	if user, _, ok := strings.Cut(word, "@"); ok {
		for i := range names {
			names[i] = user + "@" + names[i]
		}
	}
	return names, directive
}

// completePlaces completes the ends of a copy: the VMs that run, each with the colon after which its path comes, and, for a
// word that is none of them, the shell's own files.
func (a *app) completePlaces(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if parsePlace(word).vm != "" {
		return nil, cobra.ShellCompDirectiveNoFileComp // a path in a guest
	}
	if len(args) == 1 && parsePlace(args[0]).vm != "" {
		return nil, cobra.ShellCompDirectiveDefault // the other end is here
	}
	c, _, err := a.connectRunning()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	defer c.Close()
	records, _ := c.Summaries(cmd.Context())
	var places []cobra.Completion
	for _, r := range records {
		if r.State == vm.StateRunning || r.State == vm.StateStarting {
			places = append(places, r.Name+":")
		}
	}
	return places, cobra.ShellCompDirectiveNoSpace
}
