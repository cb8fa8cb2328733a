package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// newCompletion groups the scripts that teach shells our commands. It takes the place of cobra's, which speaks of other
// systems and answers an unknown shell with success.
func newCompletion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "completion",
		Short:   "Print what makes a shell complete banger's commands",
		Long:    "Print a script that makes a shell complete banger's commands, flags and VM names.",
		Example: "  banger completion bash\n  banger completion zsh",
		Args:    group,
		RunE:    help,
	}
	cmd.AddCommand(
		newCompletionOf(a, "bash", "It needs the package bash-completion.",
			"  source <(banger completion bash)                                      for this shell\n"+
				"  banger completion bash > /etc/bash_completion.d/banger                for every new one",
			func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) }),
		newCompletionOf(a, "zsh", "Completion must be on: 'autoload -U compinit; compinit' in ~/.zshrc.",
			"  source <(banger completion zsh)                                       for this shell\n"+
				"  banger completion zsh > /usr/local/share/zsh/site-functions/_banger   for every new one",
			func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) }),
		newCompletionOf(a, "fish", "",
			"  banger completion fish | source                                       for this shell\n"+
				"  banger completion fish > ~/.config/fish/completions/banger.fish       for every new one",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) }),
	)
	return cmd
}

func newCompletionOf(a *app, shell, needs, example string, write func(root *cobra.Command, w io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use:     shell,
		Short:   "Print the script for " + shell,
		Long:    "Print the script that makes " + shell + " complete banger's commands, flags and VM names." + after("\n\n", needs),
		Example: example,
		Args:    atMost(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return write(cmd.Root(), a.out) },
	}
}
