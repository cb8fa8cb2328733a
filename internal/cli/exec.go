package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/vm"
)

// lives asks a VM's guest for something that it can only answer itself.
func lives(c *client.Client, ref string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.Processes(ctx, ref)
		if vm.CodeOf(err) == vm.CodeNotFound { // it was renamed, or has gone, which the connection tells
			return nil
		}
		return err
	}
}

func newExec(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME [--] COMMAND [ARG...]",
		Short: "Run a command in a running VM",
		Long: `Run a command in a running VM, and exit with the command's status. A VM that is starting is waited for.

Stdin is passed only with -i or -t.

` + signalHelp + `

Exit status: the command's own; 125 when banger failed, 126 when the command could not be invoked, 127 when it was not
found.`,
		Example: `  banger vm exec web -- uname -r
  banger vm exec -it web bash
  echo hi | banger vm exec -i web -- tee /root/hi
  banger vm exec -e LANG=C -w /srv -u nobody web -- ls`,
		ValidArgsFunction: a.completeVMs(1),
	}
	cmd.Flags().SetInterspersed(false)
	flags := newExecFlags(cmd)
	quiet := quietFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name, argv, err := nameAndCommand(cmd, args)
		if err != nil {
			return err
		}
		if len(argv) == 0 {
			return usage(cmd, "missing command")
		}
		request, err := flags.request(a, cmd, argv)
		if err != nil {
			return err
		}
		return a.with(cmd.Context(), *quiet, func(ctx context.Context, c *client.Client, p *progress) error {
			arrived := p.follow(ctx, c, name)
			conn, err := c.Exec(ctx, name, request)
			arrived(err == nil)
			p.finish(err == nil)
			if err != nil {
				return err
			}
			return a.session(ctx, conn, request, name, lives(c, name))
		})
	}
	return cmd
}
