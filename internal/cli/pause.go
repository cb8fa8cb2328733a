package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

func newPause(a *app) *cobra.Command {
	return eachCommand(a, &cobra.Command{
		Use:   "pause [flags] NAME... | --all",
		Short: "Halt running VMs where they are",
		Long: `Halt the processors of running VMs. They take no processor time until 'banger vm resume'; memory, disks, addresses and
connections stay as they are. Commands in them do not go on, and new ones are refused. A paused VM can be stopped, for which it
goes on, killed and deleted. It is paused no more after a reboot of the host: that ends it.`,
		Example: "  banger vm pause web\n  banger vm pause 'test-*'\n  banger vm list --filter state=paused",
	}, each{do: func(ctx context.Context, c *client.Client, name string, _ func(vm.Event)) error {
		_, err := c.Pause(ctx, name)
		return err
	}})
}

func newResume(a *app) *cobra.Command {
	return eachCommand(a, &cobra.Command{
		Use:     "resume [flags] NAME... | --all",
		Aliases: []string{"unpause"},
		Short:   "Let paused VMs go on",
		Long:    "Let paused VMs go on, from where they were. One that runs is left as it is.",
		Example: "  banger vm resume web\n  banger vm resume 'test-*'",
	}, each{do: func(ctx context.Context, c *client.Client, name string, _ func(vm.Event)) error {
		_, err := c.Resume(ctx, name)
		return err
	}})
}
